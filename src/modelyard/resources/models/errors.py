"""Sentences of models."""

from __future__ import annotations

from modelyard.kit.errors import Conflict


class TrainingNotComplete(Conflict):
    """A model is made only from a training that is COMPLETE."""

    code = 409060

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"the training '{name}' is {state}; a model can be made from it once it is COMPLETE")


class ModelInUse(Conflict):
    """Endpoints stand in the way of a deletion."""

    code = 409061

    def __init__(self, endpoints: list[str]) -> None:
        listed = ", ".join(f"'{endpoint}'" for endpoint in endpoints)
        super().__init__(f"the model is deployed on endpoints ({listed}); delete those, or their stages, first")
