"""Sentences of experiments."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kit.errors import Blocked, Blocker, Conflict, Fault


class ExperimentNameTaken(Conflict):
    """The project has an experiment of this name."""

    code = 409040

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is already an experiment named '{name}' in this project; choose another name or use that one"
        )


class ExperimentQuotaExceeded(Conflict):
    """The project has as many experiments as it may have."""

    code = 409044

    def __init__(self, limit: int) -> None:
        sentence = f"a project may have at most {limit} experiments; delete one, or ask an admin to raise the quota"
        super().__init__(sentence, faults=[Fault("project", sentence)])


class ExperimentInUse(Blocked):
    """Trainings stand in the way of a deletion."""

    code = 409041

    def __init__(self, trainings: Sequence[Blocker]) -> None:
        super().__init__("the experiment still has trainings ({blockers}); delete them first", trainings)


class ExperimentBusy(Conflict):
    """It is being created."""

    code = 409042

    def __init__(self, name: str) -> None:
        super().__init__(f"the experiment '{name}' is being created; wait until that has ended")


class ExperimentNotUsable(Conflict):
    """Its creation failed; nothing can be put into it before that was tried again."""

    code = 409045

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the experiment '{name}' is {state}; retry its creation first, or choose another one")


class ExperimentNotFailed(Conflict):
    """Only a failed creation can be tried again."""

    code = 409043

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the experiment '{name}' is {state}; only one whose creation failed can be tried again")
