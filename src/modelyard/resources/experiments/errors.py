"""Sentences of experiments."""

from __future__ import annotations

from modelyard.kit.errors import Conflict


class ExperimentNameTaken(Conflict):
    """The project has an experiment of this name."""

    code = 409040

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is already an experiment named '{name}' in this project; choose another name or use that one"
        )


class ExperimentInUse(Conflict):
    """Trainings stand in the way of a deletion."""

    code = 409041

    def __init__(self, trainings: list[str]) -> None:
        listed = ", ".join(f"'{training}'" for training in trainings)
        super().__init__(f"the experiment still has trainings ({listed}); delete them first")


class ExperimentBusy(Conflict):
    """It is being created."""

    code = 409042

    def __init__(self, name: str) -> None:
        super().__init__(f"the experiment '{name}' is being created; wait until that has ended")


class ExperimentNotFailed(Conflict):
    """Only a failed creation can be tried again."""

    code = 409043

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the experiment '{name}' is {state}; only one whose creation failed can be tried again")
