"""What to do about a workload: a pure function of what is wanted, what was seen and the time.

Nothing here waits, reads or writes; the reconciler carries out what is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelyard.compute.port import Cause, Observation, Phase
from modelyard.kit.backoff import Backoff
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import (
    Desired,
    ExitSeen,
    InstanceSeen,
    Retired,
    Workload,
    WorkloadStatus,
    instance_id,
    plain_report,
    plain_text,
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
            else ExitSeen(cause=ended.cause, message=plain_text(ended.message), code=ended.code, signal=ended.signal),
            "started_at": observation.started_at,
            "ended_at": observation.ended_at,
            "report": plain_report(observation.report),
            "address": next(iter(observation.sockets.values()), None),
            "notes": tuple(plain_text(note) for note in observation.notes),
        }
    )


def decide(
    workload: Workload, observations: Mapping[str, Observation], ready: Mapping[str, bool], now: datetime
) -> Decision:
    """What should happen to an admitted workload that is not in a final state."""
    seen = tuple(look(item, observations.get(item.id), ready.get(item.id, False)) for item in workload.status.instances)
    status = workload.status.model_copy(update={"instances": seen})
    if workload.desired is not Desired.RUN:
        return _wind_down(workload, status)
    if workload.spec.restart == "always":
        return _keep_up(workload, status, now)
    return _run_to_end(workload, status, now)


def _wind_down(workload: Workload, status: WorkloadStatus) -> Decision:
    running = tuple(item.id for item in status.instances if _is_running(item))
    if running:
        return Decision(
            WorkloadState.STOPPING, status, "STOP_REQUESTED", "Stopping: the processes are asked to end.", stop=running
        )
    if _all_succeeded(status):
        return Decision(WorkloadState.SUCCEEDED, status)
    return Decision(WorkloadState.STOPPED, status, "STOPPED", "Stopped as requested.")


def _run_to_end(workload: Workload, status: WorkloadStatus, now: datetime) -> Decision:
    failed = _first_failed(status.instances)
    if failed is not None:
        running = tuple(item.id for item in status.instances if _is_running(item))
        if running:  # one for all: the others would wait for it for ever
            return _end_others(workload, status, failed, running)
        if _is_lost(failed):
            return _start_anew(workload, status, failed, now)
        return Decision(WorkloadState.FAILED, status, _reason(failed), _sentence(workload, failed))
    to_launch = tuple(item.index for item in status.instances if not item.is_launched)
    if to_launch:
        return Decision(WorkloadState.STARTING, status, launch=to_launch)
    if _all_succeeded(status):
        return Decision(WorkloadState.SUCCEEDED, status)
    is_up = all(item.phase != Phase.STARTING for item in status.instances)
    return Decision(WorkloadState.RUNNING if is_up else WorkloadState.STARTING, status)


def _start_anew(workload: Workload, status: WorkloadStatus, lost: InstanceSeen, now: datetime) -> Decision:
    """All of it, from the queue on: nobody wanted it to end."""
    was_shut_down = all(item.exit is None or item.exit.cause != Cause.LOST for item in status.instances)
    # A shutdown of the platform can be repeated as often as one likes; a machine that goes down may do so because of this workload.
    lost_count = status.lost_count if was_shut_down else status.lost_count + 1
    if lost_count > workload.spec.lost_restarts:
        return Decision(WorkloadState.FAILED, status, _reason(lost), _sentence(workload, lost))
    attempt = status.attempt + 1
    fresh = WorkloadStatus(
        attempt=attempt,
        lost_count=lost_count,
        instances=fresh_instances(workload, attempt),
        retired=(*status.retired, *_retired(status.instances, now)),
    )
    cause = "The platform was shut down" if was_shut_down else "The machine went down under it"
    return Decision(WorkloadState.PENDING, fresh, "LOST", f"{cause}; starting it again (attempt {attempt + 1}).")


def _keep_up(workload: Workload, status: WorkloadStatus, now: datetime) -> Decision:
    never_worked = next((item for item in status.instances if _has_never_worked(workload, item, now)), None)
    if never_worked is not None:
        # Starting it over and over would hide the reason.
        running = tuple(item.id for item in status.instances if _is_running(item))
        if running:
            return _end_others(workload, status, never_worked, running)
        if never_worked.exit is not None and _is_lost(never_worked):  # we ended it ourselves
            return Decision(WorkloadState.FAILED, status, "NEVER_READY", _never_ready(workload, never_worked))
        return Decision(WorkloadState.FAILED, status, _reason(never_worked), _sentence(workload, never_worked))
    instances: list[InstanceSeen] = []
    retired: list[InstanceSeen] = []
    waits: list[float] = []
    for item in status.instances:
        if item.phase != Phase.EXITED:
            instances.append(item)
            waits.extend(_seconds_to_be_ready(workload, item, now))
            continue
        restarted, wait_seconds = _restart(workload, item, now)
        instances.append(restarted)
        if wait_seconds > 0:
            waits.append(wait_seconds)
        else:
            retired.append(item)
    status = status.model_copy(
        update={"instances": tuple(instances), "retired": (*status.retired, *_retired(retired, now))}
    )
    ready_count = sum(item.is_ready for item in instances)
    message = _readiness(instances, ready_count)
    return Decision(
        WorkloadState.RUNNING if ready_count else WorkloadState.STARTING,
        status,
        None if message is None else "NOT_READY",
        message,
        launch=tuple(item.index for item in instances if not item.is_launched),
        again_after_seconds=min(waits, default=None),
    )


def _end_others(workload: Workload, status: WorkloadStatus, failed: InstanceSeen, running: tuple[str, ...]) -> Decision:
    message = f"Instance {failed.index} ended; ending the others."
    if failed.id in running:
        message = _never_ready(workload, failed)
    reason = _reason(failed) if failed.exit is not None else "NEVER_READY"
    return Decision(workload.state, status, reason, message, stop=running)


def _readiness(instances: Iterable[InstanceSeen], ready_count: int) -> str | None:
    instances = tuple(instances)
    message = None if ready_count == len(instances) else f"{ready_count} of {len(instances)} instances are ready."
    crashed = next((item for item in instances if item.phase == Phase.EXITED and item.exit), None)
    if crashed is not None and crashed.exit is not None:
        message = f"{message or ''} Instance {crashed.index} is started again: {crashed.exit.message}".strip()
    return message


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
        was_ready=item.was_ready,
    )
    return fresh, 0.0


def _has_never_worked(workload: Workload, item: InstanceSeen, now: datetime) -> bool:
    if item.was_ready or not item.is_launched:
        return False
    if item.phase != Phase.EXITED:
        return any(seconds <= 0 for seconds in _seconds_to_be_ready(workload, item, now))
    return not _is_lost(item) or _was_overdue(workload, item)


def _seconds_to_be_ready(workload: Workload, item: InstanceSeen, now: datetime) -> tuple[float, ...]:
    """How long it may still take until it is ready for the first time; nothing where that does not count."""
    limit_seconds = workload.spec.ready_seconds
    if limit_seconds is None or workload.spec.ready_path is None or item.was_ready or item.started_at is None:
        return ()
    return (limit_seconds - (now - item.started_at).total_seconds(),)


def _was_overdue(workload: Workload, item: InstanceSeen) -> bool:
    """Whether it was stopped because it had not become ready in time."""
    if item.ended_at is None or item.exit is None or item.exit.cause != Cause.STOPPED:
        return False
    return any(seconds <= 0 for seconds in _seconds_to_be_ready(workload, item, item.ended_at))


def _never_ready(workload: Workload, item: InstanceSeen) -> str:
    minutes = (workload.spec.ready_seconds or 0.0) / 60
    return f"Instance {item.index} was not ready for requests within {minutes:.0f} minutes."


def _retired(items: Iterable[InstanceSeen], now: datetime) -> tuple[Retired, ...]:
    return tuple(Retired(id=item.id, retired_at=now) for item in items if item.is_launched)


def _is_running(item: InstanceSeen) -> bool:
    return item.is_launched and item.phase != Phase.EXITED


def _first_failed(items: Iterable[InstanceSeen]) -> InstanceSeen | None:
    """The one to blame. One that was lost or stopped is to blame only where none failed by itself: we stop the others ourselves."""
    failed = [item for item in items if _has_failed(item)]
    return next((item for item in failed if not _is_lost(item)), failed[0] if failed else None)


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
