"""Sentences of trainings."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kit.errors import Blocked, Blocker, Conflict, Fault


class TrainingStillRuns(Conflict):
    """A running training can't be deleted."""

    code = 409050

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the training '{name}' is {state}; stop it first and delete it then")


class TrainingHasEnded(Conflict):
    """What has ended can't be stopped."""

    code = 409051

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the training '{name}' has ended already ({state}); there is nothing to stop")


class TrainingQuotaExceeded(Conflict):
    """The project has as many trainings under way as it may have."""

    code = 409053

    def __init__(self, limit: int) -> None:
        sentence = f"at most {limit} trainings of a project may be under way at a time; wait for one to end, or ask an admin to raise the quota"
        super().__init__(sentence, faults=[Fault("project", sentence)])


class SourceNotKept(Conflict):
    """The platform has no copy of the source that a training ran with."""

    code = 409054

    def __init__(self, name: str, note: str | None) -> None:
        why = note or "it has not read its source yet"
        super().__init__(
            f"the source that the training '{name}' ran with is not kept ({why}); copy it without sameSource"
        )


class TrainingHasModels(Blocked):
    """Models made from it stand in the way of a deletion."""

    code = 409052

    def __init__(self, models: Sequence[Blocker]) -> None:
        super().__init__("models were made from the training ({blockers}); delete them first", models)
