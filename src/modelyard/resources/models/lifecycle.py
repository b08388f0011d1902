"""States of a model."""

from __future__ import annotations

from enum import StrEnum

from modelyard.kit.lifecycle import Lifecycle


class ModelState(StrEnum):
    """A model is a record of an artifact that was checked when it was made, so it is ACTIVE at once."""

    ACTIVE = "ACTIVE"


LIFECYCLE = Lifecycle(name="model", initial=ModelState.ACTIVE, moves={ModelState.ACTIVE: frozenset[ModelState]()})
