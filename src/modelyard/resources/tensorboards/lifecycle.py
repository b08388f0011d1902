"""States of a TensorBoard. One that does not run is not there at all."""

from __future__ import annotations

from enum import StrEnum

from modelyard.kit.lifecycle import Lifecycle


class TensorBoardState(StrEnum):
    """STOPPED is what callers are told of one that is not there."""

    STARTING = "STARTING"
    ACTIVE = "ACTIVE"
    STOPPING = "STOPPING"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


_S = TensorBoardState

LIFECYCLE = Lifecycle(
    name="tensorboard",
    initial=_S.STARTING,
    moves={
        _S.STARTING: frozenset({_S.ACTIVE, _S.FAILED, _S.STOPPING}),
        _S.ACTIVE: frozenset({_S.STARTING, _S.FAILED, _S.STOPPING}),
        _S.FAILED: frozenset({_S.STOPPING}),
        _S.STOPPING: frozenset({_S.STOPPED}),
        _S.STOPPED: frozenset(),
    },
)
