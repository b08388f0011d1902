"""States of a workload."""

from __future__ import annotations

from enum import StrEnum

from modelyard.kit.lifecycle import Lifecycle


class WorkloadState(StrEnum):
    """PENDING waits for room; the last three are final."""

    PENDING = "PENDING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


_S = WorkloadState

LIFECYCLE = Lifecycle(
    name="workload",
    initial=_S.PENDING,
    moves={
        _S.PENDING: frozenset({_S.STARTING, _S.STOPPED, _S.FAILED}),
        # Back to PENDING: what the machine lost is started again.
        _S.STARTING: frozenset({_S.RUNNING, _S.STOPPING, _S.SUCCEEDED, _S.FAILED, _S.STOPPED, _S.PENDING}),
        _S.RUNNING: frozenset({_S.STARTING, _S.STOPPING, _S.SUCCEEDED, _S.FAILED, _S.STOPPED, _S.PENDING}),
        _S.STOPPING: frozenset({_S.STOPPED, _S.SUCCEEDED, _S.FAILED}),
        _S.SUCCEEDED: frozenset(),
        _S.FAILED: frozenset(),
        _S.STOPPED: frozenset(),
    },
)
