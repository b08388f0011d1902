"""What a TensorBoard is asked to show."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

KIND = "tensorboard"


class OwnerKind(StrEnum):
    """Whose event files it shows: those of one training, or of all trainings of an experiment side by side."""

    TRAINING = "training"
    EXPERIMENT = "experiment"


class Owner(BaseModel):
    """Whose it is. `experiment_id` says where a training's event files lie; for an experiment it is its own id."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: OwnerKind
    id: str
    project_id: str
    name: str
    experiment_id: str | None = None

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"TensorBoard of {self.kind.value} '{self.name}'"
