"""Sentences of models."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kit.errors import Blocked, Blocker, Conflict, Fault, Invalid, NotFound


class TrainingNotComplete(Conflict):
    """A model is made only from a training that is COMPLETE."""

    code = 409090

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the training '{name}' is {state}; a model can be made from it once it is COMPLETE")


class ModelInUse(Blocked):
    """Endpoints stand in the way of a deletion."""

    code = 409091

    def __init__(self, endpoints: Sequence[Blocker]) -> None:
        super().__init__(
            "the model is deployed on endpoints ({blockers}); delete those, or their stages, first", endpoints
        )


class ModelNotUsable(Conflict):
    """The model is not, or no longer, something that can be used."""

    code = 409092

    def __init__(self, name: str, state: str, message: str | None) -> None:
        super().__init__(f"the model '{name}' is {state}" + (f": {message}" if message else ""))


class ModelHasAliases(Conflict):
    """Aliases belong to a name, so a model that has some keeps its name."""

    code = 409093

    def __init__(self, aliases: list[str]) -> None:
        listed = ", ".join(f"'{alias}'" for alias in aliases)
        super().__init__(
            f"the model has aliases ({listed}), which belong to its name; take them away before it gets another"
        )


class NameOfArchive(Invalid):
    """A PyTorch archive is served under the name that it has in its configuration."""

    code = 400060

    def __init__(self, name: str) -> None:
        message = f"must stay '{name}': the archive's configuration has that name, and both must be the same"
        super().__init__([Fault("modelName", message)])


class NoSuchAlias(NotFound):
    """The model has no such alias."""

    def __init__(self, alias: str) -> None:
        super().__init__("alias", alias)
