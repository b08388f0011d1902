"""What to do about a workload that runs to its end: all instances together, from their launch to their end, and once more where that helps.

One for all: the instances start together, one that fails ends the others, and another attempt is one of all of them. Pure.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from modelyard.compute.port import Cause, Phase
from modelyard.kit.backoff import Backoff
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import InstanceSeen, Workload, WorkloadStatus
from modelyard.resources.workloads.sight import (
    Decision,
    all_succeeded,
    blamed,
    fresh_instances,
    is_lost,
    is_running,
    is_waiting_for_others,
    reason_of,
    retired_of,
    sentence_of,
)

RESTART = "RESTART"
"""The reason of a workload that waits for its next attempt."""

_RESTART_BACKOFF = Backoff(base_seconds=1.0, limit_seconds=60.0)
_OTHERS_SECONDS = 3.0
_LAUNCH_PATIENCE_SECONDS = 60.0
_CURABLE = (Cause.EXITED, Cause.SIGNAL, Cause.OUT_OF_MEMORY)
"""Ends after which another attempt may end better. A time limit is used up, and files that did not fit won't fit again."""


def run_to_end(workload: Workload, status: WorkloadStatus, now: datetime) -> Decision:
    """What should happen now. The status is up to date with what is seen."""
    failed = blamed(status.instances)
    if failed is not None:
        return _end(workload, status, failed, now)
    wait_seconds = (status.retry_at - now).total_seconds() if status.retry_at is not None else 0.0
    if wait_seconds > 0:
        return Decision(WorkloadState.STARTING, status, RESTART, workload.message, again_after_seconds=wait_seconds)
    to_launch = tuple(item.index for item in status.instances if not item.is_launched)
    if to_launch:
        return _launch(status, to_launch, now)
    if all_succeeded(status):
        return Decision(WorkloadState.SUCCEEDED, status)
    if workload.spec.ports and not status.is_introduced and all(map(is_waiting_for_others, status.instances)):
        status = status.model_copy(update={"is_introduced": True})
        return Decision(WorkloadState.RUNNING, status, introduce=True)
    is_up = all(item.phase != Phase.STARTING for item in status.instances)
    return Decision(WorkloadState.RUNNING if is_up else WorkloadState.STARTING, status)


def _launch(status: WorkloadStatus, to_launch: tuple[int, ...], now: datetime) -> Decision:
    """Launch what is not launched; give all back where some could not be launched for a long time: those that run would wait in vain."""
    if status.obstacle is None or status.obstacle_since is None:
        return Decision(WorkloadState.STARTING, status, launch=to_launch)
    message = f"Instance {to_launch[0]} can't be started: {status.obstacle}"
    running = tuple(item.id for item in status.instances if is_running(item))
    if running and (now - status.obstacle_since).total_seconds() > _LAUNCH_PATIENCE_SECONDS:
        given_back = f"{message} The others are given back, and it is tried again."
        return Decision(WorkloadState.STARTING, status, "LAUNCH_UNDONE", given_back, stop=running)
    return Decision(WorkloadState.STARTING, status, "LAUNCHING", message, launch=to_launch)


def _end(workload: Workload, status: WorkloadStatus, failed: InstanceSeen, now: datetime) -> Decision:
    others = tuple(item.id for item in status.instances if is_running(item) and item.id != failed.id)
    if others or is_running(failed):  # one for all: the others would wait for it for ever
        message = sentence_of(workload, failed)
        if others:
            message = f"{message} The other instances are ended."
        return Decision(
            workload.state, status, reason_of(failed), message, stop=others, insist_after_seconds=_OTHERS_SECONDS
        )
    status = status.model_copy(update={"failed_index": failed.index})
    if is_lost(failed):
        return _after_a_loss(workload, status, failed, now)
    return _after_a_failure(workload, status, failed, now)


def _after_a_loss(workload: Workload, status: WorkloadStatus, lost: InstanceSeen, now: datetime) -> Decision:
    """All of it once more, from the queue on: nobody wanted it to end."""
    was_ended_by_us = all(item.exit is None or item.exit.cause != Cause.LOST for item in status.instances)
    # A shutdown of the platform can be repeated as often as one likes; a machine that goes down may do so because of this workload.
    lost_count = status.lost_count if was_ended_by_us else status.lost_count + 1
    if lost_count > workload.spec.lost_restarts:
        return Decision(WorkloadState.FAILED, status, reason_of(lost), sentence_of(workload, lost))
    fresh = _next_attempt(workload, status, now).model_copy(update={"lost_count": lost_count})
    if (limit := _used_up(workload, status, fresh)) is not None:
        return limit
    if status.obstacle is not None:
        cause = f"Not all instances could be started ({status.obstacle.rstrip('.')})"
    else:
        cause = "The platform was shut down" if was_ended_by_us else "The machine went down under it"
    return Decision(WorkloadState.PENDING, fresh, "LOST", f"{cause}; starting it again (attempt {fresh.attempt + 1}).")


def _after_a_failure(workload: Workload, status: WorkloadStatus, failed: InstanceSeen, now: datetime) -> Decision:
    """Another attempt if one is left and may help. It keeps its room, so that it does not queue again for having failed."""
    sentence, allowed = sentence_of(workload, failed), workload.spec.failure_restarts
    if status.failure_count >= allowed or not _is_curable(workload, failed):
        tried = f" It was the last of {allowed + 1} attempts." if allowed and status.failure_count >= allowed else ""
        return Decision(WorkloadState.FAILED, status, reason_of(failed), f"{sentence}{tried}")
    failure_count = status.failure_count + 1
    wait_seconds = _RESTART_BACKOFF.delay_seconds(failure_count)
    fresh = _next_attempt(workload, status, now).model_copy(
        update={"failure_count": failure_count, "retry_at": now + timedelta(seconds=wait_seconds)}
    )
    if (limit := _used_up(workload, status, fresh)) is not None:
        return limit
    message = f"{sentence} Starting it again in {wait_seconds:.0f} s (restart {failure_count} of {allowed})."
    return Decision(WorkloadState.STARTING, fresh, RESTART, message, again_after_seconds=wait_seconds)


def _next_attempt(workload: Workload, status: WorkloadStatus, now: datetime) -> WorkloadStatus:
    attempt = status.attempt + 1
    begins = [item.started_at for item in status.instances if item.started_at is not None]
    used_seconds = max(0.0, (now - min(begins)).total_seconds()) if begins else 0.0
    return WorkloadStatus(
        attempt=attempt,
        lost_count=status.lost_count,
        failure_count=status.failure_count,
        used_seconds=status.used_seconds + used_seconds,
        instances=fresh_instances(workload, attempt),
        retired=(*status.retired, *retired_of(status.instances, now)),
    )


def _used_up(workload: Workload, status: WorkloadStatus, fresh: WorkloadStatus) -> Decision | None:
    """The end where the former attempts have taken all the time that there is."""
    limit_seconds = workload.spec.timeout_seconds
    if limit_seconds is None or fresh.used_seconds < limit_seconds:
        return None
    message = f"Its time limit of {limit_seconds:g} s is used up after {fresh.attempt} attempts."
    return Decision(WorkloadState.FAILED, status, Cause.TIME_LIMIT, message)


def _is_curable(workload: Workload, failed: InstanceSeen) -> bool:
    if failed.exit is None or failed.exit.cause not in _CURABLE:
        return False
    return failed.exit.code not in workload.spec.fatal_codes
