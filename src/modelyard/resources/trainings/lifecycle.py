"""States of a training."""

from __future__ import annotations

from enum import StrEnum

from modelyard.kit.lifecycle import Lifecycle


class TrainingState(StrEnum):
    """The guide's states."""

    CREATE_REQUESTED = "CREATE_REQUESTED"
    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    RUNNING = "RUNNING"
    COMPLETE_IN_PROGRESS = "COMPLETE_IN_PROGRESS"
    COMPLETE = "COMPLETE"
    STOP_IN_PROGRESS = "STOP_IN_PROGRESS"
    STOPPED = "STOPPED"
    FAIL_TRAIN_IN_PROGRESS = "FAIL_TRAIN_IN_PROGRESS"
    FAIL_TRAIN = "FAIL_TRAIN"
    CREATE_FAILED = "CREATE_FAILED"


_S = TrainingState
# A look may come late and find the end at once, so every end may follow every state.
_ENDS = frozenset({_S.COMPLETE, _S.STOPPED, _S.FAIL_TRAIN, _S.CREATE_FAILED})
# Which of these is shown is the process's own word, and it may say one after the other in any order. Back to CREATE_IN_PROGRESS goes
# what the machine lost and what is started again.
_UNDER_WAY = frozenset(
    {_S.CREATE_IN_PROGRESS, _S.RUNNING, _S.COMPLETE_IN_PROGRESS, _S.FAIL_TRAIN_IN_PROGRESS, _S.STOP_IN_PROGRESS}
)

LIFECYCLE = Lifecycle(
    name="training",
    initial=_S.CREATE_REQUESTED,
    moves={
        _S.CREATE_REQUESTED: frozenset({_S.CREATE_IN_PROGRESS, _S.STOP_IN_PROGRESS, _S.STOPPED, _S.CREATE_FAILED}),
        _S.CREATE_IN_PROGRESS: _UNDER_WAY - {_S.CREATE_IN_PROGRESS} | _ENDS,
        _S.RUNNING: _UNDER_WAY - {_S.RUNNING} | _ENDS,
        _S.COMPLETE_IN_PROGRESS: _UNDER_WAY - {_S.COMPLETE_IN_PROGRESS} | _ENDS,
        _S.FAIL_TRAIN_IN_PROGRESS: _UNDER_WAY - {_S.FAIL_TRAIN_IN_PROGRESS} | _ENDS,
        _S.STOP_IN_PROGRESS: _ENDS,
        _S.COMPLETE: frozenset(),
        _S.STOPPED: frozenset(),
        _S.FAIL_TRAIN: frozenset(),
        _S.CREATE_FAILED: frozenset(),
    },
)
