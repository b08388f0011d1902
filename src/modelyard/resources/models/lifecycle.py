"""States of a model."""

from __future__ import annotations

from enum import StrEnum

from modelyard.kit.lifecycle import Lifecycle


class ModelState(StrEnum):
    """A model is ACTIVE once its artifact was looked at (and, where asked for, copied). Without a copy it is gone as soon as it is deleted."""

    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    ACTIVE = "ACTIVE"
    CREATE_FAILED = "CREATE_FAILED"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"


_S = ModelState

LIFECYCLE = Lifecycle(
    name="model",
    initial=_S.CREATE_IN_PROGRESS,
    moves={
        _S.CREATE_IN_PROGRESS: frozenset({_S.ACTIVE, _S.CREATE_FAILED, _S.DELETE_IN_PROGRESS}),
        _S.ACTIVE: frozenset({_S.DELETE_IN_PROGRESS}),
        # A new name is looked at anew.
        _S.CREATE_FAILED: frozenset({_S.CREATE_IN_PROGRESS, _S.DELETE_IN_PROGRESS}),
        _S.DELETE_IN_PROGRESS: frozenset(),
    },
)
