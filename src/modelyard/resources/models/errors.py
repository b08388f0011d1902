"""Sentences of models."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kit.errors import Blocked, Blocker, Conflict


class TrainingNotComplete(Conflict):
    """A model is made only from a training that is COMPLETE."""

    code = 409060

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the training '{name}' is {state}; a model can be made from it once it is COMPLETE")


class ModelInUse(Blocked):
    """Endpoints stand in the way of a deletion."""

    code = 409061

    def __init__(self, endpoints: Sequence[Blocker]) -> None:
        super().__init__(
            "the model is deployed on endpoints ({blockers}); delete those, or their stages, first", endpoints
        )
