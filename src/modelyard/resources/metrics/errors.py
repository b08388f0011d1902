"""What can be wrong with a request about metrics."""

from __future__ import annotations

from modelyard.kit.errors import Forbidden


class ForeignRun(Forbidden):
    """A run's own token was used to write metrics of another run."""

    code = 403021

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"this token belongs to another run and can't write metrics of '{run_id}'; "
            "write to the run in EM_TRAINING_ID, or use an access token of the project"
        )
