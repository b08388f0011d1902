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
_ENDS = frozenset({_S.COMPLETE, _S.STOPPED, _S.FAIL_TRAIN})

LIFECYCLE = Lifecycle(
    name="training",
    initial=_S.CREATE_REQUESTED,
    moves={
        _S.CREATE_REQUESTED: frozenset({_S.CREATE_IN_PROGRESS, _S.STOP_IN_PROGRESS, _S.STOPPED, _S.CREATE_FAILED}),
        # A short run may be over before its steps were seen, so every later state may follow.
        _S.CREATE_IN_PROGRESS: frozenset(
            {
                _S.RUNNING,
                _S.COMPLETE_IN_PROGRESS,
                _S.FAIL_TRAIN_IN_PROGRESS,
                _S.STOP_IN_PROGRESS,
                _S.CREATE_FAILED,
                *_ENDS,
            }
        ),
        # Back to CREATE_IN_PROGRESS: the machine lost it and it is started again.
        _S.RUNNING: frozenset(
            {
                _S.CREATE_IN_PROGRESS,
                _S.COMPLETE_IN_PROGRESS,
                _S.FAIL_TRAIN_IN_PROGRESS,
                _S.STOP_IN_PROGRESS,
                *_ENDS,
            }
        ),
        _S.COMPLETE_IN_PROGRESS: frozenset(
            {_S.CREATE_IN_PROGRESS, _S.FAIL_TRAIN_IN_PROGRESS, _S.STOP_IN_PROGRESS, *_ENDS}
        ),
        _S.FAIL_TRAIN_IN_PROGRESS: frozenset({_S.CREATE_IN_PROGRESS, _S.STOP_IN_PROGRESS, *_ENDS}),
        _S.STOP_IN_PROGRESS: _ENDS,
        _S.COMPLETE: frozenset(),
        _S.STOPPED: frozenset(),
        _S.FAIL_TRAIN: frozenset(),
        _S.CREATE_FAILED: frozenset(),
    },
)
