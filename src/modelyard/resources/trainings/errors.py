"""Sentences of trainings."""

from __future__ import annotations

from modelyard.kit.errors import Conflict


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


class TrainingHasModels(Conflict):
    """Models made from it stand in the way of a deletion."""

    code = 409052

    def __init__(self, models: list[str]) -> None:
        listed = ", ".join(f"'{model}'" for model in models)
        super().__init__(f"models were made from the training ({listed}); delete them first")
