"""What to do about a workload: a pure function of what is wanted, what was seen and the time.

Nothing here waits, reads or writes; the reconciler carries out what is decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelyard.compute.port import Cause, Observation, Phase
from modelyard.kit.backoff import Backoff
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import (
    Desired,
    ExitSeen,
    InstanceSeen,
    Workload,
    WorkloadStatus,
    instance_id,
)

_CRASH_BACKOFF = Backoff(base_seconds=1.0, limit_seconds=60.0)
_STABLE_SECONDS = 120.0
_PROBES_TO_MISS = 5


@dataclass(frozen=True, slots=True)
class Decision:
    """What should be.

    Attributes:
        launch: indices of instances to launch now.
        stop: ids of instances to stop now.
        status: what to remember of what was seen.
        again_after_seconds: look again then, though nobody asks.
    """

    state: WorkloadState
    status: WorkloadStatus
    reason: str | None = None
    message: str | None = None
    launch: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    again_after_seconds: float | None = None


def fresh_instances(workload: Workload, attempt: int) -> tuple[InstanceSeen, ...]:
    """The instances of a new attempt, none of them launched yet."""
    return tuple(
        InstanceSeen(id=instance_id(workload.id, index, attempt), index=index, attempt=attempt)
        for index in range(workload.spec.instances)
    )


def look(item: InstanceSeen, observation: Observation | None, is_ready: bool) -> InstanceSeen:
    """Bring what we remember up to date with what is seen now."""
    if observation is None or observation.phase is Phase.ABSENT:
        if not item.is_launched or item.phase == Phase.EXITED:
            return item
        lost = ExitSeen(cause=Cause.LOST, message="it vanished with the machine it ran on")
        return item.model_copy(update={"phase": Phase.EXITED.value, "exit": lost, "is_ready": False})
    ended = observation.exit
    is_running = observation.phase is Phase.RUNNING
    # A server that is busy may answer late: one that was ready loses its requests only after several silent looks.
    missed_probes = 0 if is_ready or not is_running else item.missed_probes + 1
    return item.model_copy(
        update={
            "is_launched": True,
            "phase": observation.phase.value,
            "missed_probes": min(missed_probes, _PROBES_TO_MISS) if item.was_ready else 0,
            "is_ready": is_running and (is_ready or (item.is_ready and missed_probes < _PROBES_TO_MISS)),
            "was_ready": item.was_ready or is_ready,
            "exit": None
            if ended is None
            else ExitSeen(cause=ended.cause, message=ended.message, code=ended.code, signal=ended.signal),
            "started_at": observation.started_at,
            "ended_at": observation.ended_at,
            "report": dict(observation.report),
            "address": next(iter(observation.sockets.values()), None),
            "notes": observation.notes,
        }
    )


def decide(
    workload: Workload, observations: Mapping[str, Observation], ready: Mapping[str, bool], now: datetime
) -> Decision:
    """What should happen to an admitted workload that is not in a final state."""
    seen = tuple(look(item, observations.get(item.id), ready.get(item.id, False)) for item in workload.status.instances)
    status = WorkloadStatus(attempt=workload.status.attempt, instances=seen)
    if workload.desired is not Desired.RUN:
        return _wind_down(workload, status)
    if workload.spec.restart == "always":
        return _keep_up(workload, status, now)
    return _run_to_end(workload, status)


def _wind_down(workload: Workload, status: WorkloadStatus) -> Decision:
    running = tuple(item.id for item in status.instances if _is_running(item))
    if running:
        return Decision(
            WorkloadState.STOPPING, status, "STOP_REQUESTED", "Stopping: the processes are asked to end.", stop=running
        )
    if _all_succeeded(status):
        return Decision(WorkloadState.SUCCEEDED, status)
    return Decision(WorkloadState.STOPPED, status, "STOPPED", "Stopped as requested.")


def _run_to_end(workload: Workload, status: WorkloadStatus) -> Decision:
    to_launch = tuple(item.index for item in status.instances if not item.is_launched)
    failed = next((item for item in status.instances if _has_failed(item)), None)
    if failed is not None:
        running = tuple(item.id for item in status.instances if _is_running(item))
        if running:  # one for all: the others would wait for it for ever
            return Decision(
                workload.state,
                status,
                _reason(failed),
                f"Instance {failed.index} ended; ending the others.",
                stop=running,
            )
        if _is_lost(failed) and workload.status.attempt < workload.spec.lost_restarts:
            attempt = workload.status.attempt + 1
            return Decision(
                WorkloadState.PENDING,
                WorkloadStatus(attempt=attempt, instances=fresh_instances(workload, attempt)),
                "LOST",
                f"The machine went down under it; starting it again (attempt {attempt + 1}).",
            )
        return Decision(WorkloadState.FAILED, status, _reason(failed), _sentence(workload, failed))
    if to_launch:
        return Decision(WorkloadState.STARTING, status, launch=to_launch)
    if _all_succeeded(status):
        return Decision(WorkloadState.SUCCEEDED, status)
    is_up = all(item.phase != Phase.STARTING for item in status.instances)
    return Decision(WorkloadState.RUNNING if is_up else WorkloadState.STARTING, status)


def _keep_up(workload: Workload, status: WorkloadStatus, now: datetime) -> Decision:
    instances: list[InstanceSeen] = []
    again_after_seconds: float | None = None
    for item in status.instances:
        if item.phase != Phase.EXITED:
            instances.append(item)
            continue
        if not item.was_ready and not _is_lost(item):
            # It has never worked: starting it over and over would hide the reason.
            return Decision(
                WorkloadState.FAILED,
                status,
                _reason(item),
                _sentence(workload, item),
                stop=tuple(other.id for other in status.instances if _is_running(other)),
            )
        restarted, wait_seconds = _restart(workload, item, now)
        instances.append(restarted)
        if wait_seconds > 0:
            again_after_seconds = min(again_after_seconds or wait_seconds, wait_seconds)
    status = WorkloadStatus(attempt=status.attempt, instances=tuple(instances))
    launch = tuple(item.index for item in instances if not item.is_launched)
    ready_count = sum(item.is_ready for item in instances)
    message = None if ready_count == len(instances) else f"{ready_count} of {len(instances)} instances are ready."
    crashed = next((item for item in instances if item.phase == Phase.EXITED and item.exit), None)
    if crashed is not None and crashed.exit is not None:
        message = f"{message or ''} Instance {crashed.index} is started again: {crashed.exit.message}".strip()
    return Decision(
        WorkloadState.RUNNING if ready_count else WorkloadState.STARTING,
        status,
        None if message is None else "NOT_READY",
        message,
        launch=launch,
        again_after_seconds=again_after_seconds,
    )


def _restart(workload: Workload, item: InstanceSeen, now: datetime) -> tuple[InstanceSeen, float]:
    """The instance as it is after this look (a fresh one once its wait is over), and the seconds still to wait."""
    if item.retry_at is None:
        was_stable = bool(
            item.started_at and item.ended_at and (item.ended_at - item.started_at).total_seconds() > _STABLE_SECONDS
        )
        failures = 1 if was_stable else item.failures + 1
        wait_seconds = 0.0 if failures == 1 else _CRASH_BACKOFF.delay_seconds(failures - 1)
        item = item.model_copy(update={"failures": failures, "retry_at": now + timedelta(seconds=wait_seconds)})
    wait_seconds = (item.retry_at - now).total_seconds() if item.retry_at else 0.0
    if wait_seconds > 0:
        return item, wait_seconds
    attempt = item.attempt + 1
    fresh = InstanceSeen(
        id=instance_id(workload.id, item.index, attempt),
        index=item.index,
        attempt=attempt,
        failures=item.failures,
        was_ready=True,
    )
    return fresh, 0.0


def _is_running(item: InstanceSeen) -> bool:
    return item.is_launched and item.phase != Phase.EXITED


def _has_failed(item: InstanceSeen) -> bool:
    return item.exit is not None and not (item.exit.cause == Cause.EXITED and item.exit.code == 0)


def _is_lost(item: InstanceSeen) -> bool:
    """The machine went down, or the platform was shut down: in both cases nobody wanted this workload to end."""
    return item.exit is not None and item.exit.cause in (Cause.LOST, Cause.STOPPED)


def _all_succeeded(status: WorkloadStatus) -> bool:
    return bool(status.instances) and all(
        item.exit is not None and item.exit.cause == Cause.EXITED and item.exit.code == 0 for item in status.instances
    )


def _reason(item: InstanceSeen) -> str:
    return item.exit.cause if item.exit else "UNKNOWN"


def _sentence(workload: Workload, item: InstanceSeen) -> str:
    """Why it failed: the process's own words where it has said something, with how it ended."""
    ended = item.exit.message if item.exit else "it ended"
    own_words = item.report.get("message") if item.report.get("step") == "failed" else None
    where = f"Instance {item.index}: " if workload.spec.instances > 1 else ""
    if isinstance(own_words, str) and own_words and (item.exit is None or item.exit.cause == Cause.EXITED):
        return f"{where}{own_words[:2000]}"
    return f"{where}{ended}"
