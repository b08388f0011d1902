"""What to do about a workload: a pure function of what is wanted, what was seen and the time.

Nothing here waits, reads or writes; the reconciler carries out what is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from modelyard.compute.port import Cause, Observation, Phase
from modelyard.kit.backoff import Backoff
from modelyard.resources.workloads.attempts import run_to_end
from modelyard.resources.workloads.lifecycle import LIFECYCLE, WorkloadState
from modelyard.resources.workloads.model import Desired, InstanceSeen, Workload, WorkloadStatus, instance_id
from modelyard.resources.workloads.sight import (
    Decision,
    all_succeeded,
    is_lost,
    is_running,
    look,
    reason_of,
    retired_of,
    sentence_of,
)

_CRASH_BACKOFF = Backoff(base_seconds=1.0, limit_seconds=60.0)
_STABLE_SECONDS = 120.0
_SILENT_GRACE_SECONDS = 5.0  # one that does not answer has hardly anything to finish


def decide(
    workload: Workload, observations: Mapping[str, Observation], ready: Mapping[str, bool], now: datetime
) -> Decision:
    """What should happen to an admitted workload that is not in a final state."""
    seen = tuple(
        _silence(workload, item, look(item, observations.get(item.id), ready.get(item.id, False)), now)
        for item in workload.status.instances
    )
    status = workload.status.model_copy(update={"instances": seen})
    if workload.desired is not Desired.RUN:
        return _wind_down(workload, status)
    if workload.spec.restart == "always":
        return _keep_up(workload, status, now)
    return run_to_end(workload, status, now)


def _wind_down(workload: Workload, status: WorkloadStatus) -> Decision:
    running = tuple(item.id for item in status.instances if is_running(item))
    if running:
        return Decision(
            WorkloadState.STOPPING, status, "STOP_REQUESTED", "Stopping: the processes are asked to end.", stop=running
        )
    if all_succeeded(status):
        return Decision(WorkloadState.SUCCEEDED, status)
    return Decision(WorkloadState.STOPPED, status, "STOPPED", "Stopped as requested.")


def _keep_up(workload: Workload, status: WorkloadStatus, now: datetime) -> Decision:
    status, leaving = _apart(workload, status, now)
    decision = _keep_up_wanted(workload, status, now)
    if not leaving:
        return decision
    state = workload.state if LIFECYCLE.is_final(decision.state) else decision.state  # over only once nothing runs
    status = decision.status.model_copy(update={"instances": (*decision.status.instances, *leaving)})
    return replace(decision, state=state, status=status, stop=(*decision.stop, *(item.id for item in leaving)))


def missing_indices(workload: Workload) -> tuple[int, ...]:
    """The numbers of the instances that a workload that is kept up lacks, because it is to have more than before.

    The number of one that is still ending is not free.
    """
    if workload.spec.restart != "always" or workload.desired is not Desired.RUN:
        return ()
    taken = {item.index for item in workload.status.instances}
    return tuple(index for index in range(workload.spec.instances) if index not in taken)


def with_instances(workload: Workload, indices: Iterable[int]) -> WorkloadStatus:
    """The status with fresh instances of these numbers.

    One that fails is tried again with back-off: that others of its kind have worked tells that the workload can.
    """
    status = workload.status
    fresh = (
        InstanceSeen(
            id=instance_id(workload.id, index, status.attempt), index=index, attempt=status.attempt, was_ready=True
        )
        for index in indices
    )
    instances = sorted((*status.instances, *fresh), key=lambda item: item.index)
    return status.model_copy(update={"instances": tuple(instances)})


def _apart(
    workload: Workload, status: WorkloadStatus, now: datetime
) -> tuple[WorkloadStatus, tuple[InstanceSeen, ...]]:
    """The status of the instances that are wanted, and, of those that are too many, the ones that still run."""
    surplus = [item for item in status.instances if item.index >= workload.spec.instances]
    if not surplus:
        return status, ()
    ended = [item for item in surplus if not is_running(item)]
    wanted = tuple(item for item in status.instances if item not in surplus)
    attempt = max((status.attempt, *(item.attempt + 1 for item in ended)))
    retired = (*status.retired, *retired_of(ended, now))
    status = status.model_copy(update={"instances": wanted, "attempt": attempt, "retired": retired})
    return status, tuple(item for item in surplus if is_running(item))


def _keep_up_wanted(workload: Workload, status: WorkloadStatus, now: datetime) -> Decision:
    never_worked = next((item for item in status.instances if _has_never_worked(workload, item, now)), None)
    if never_worked is not None:
        # Starting it over and over would hide the reason.
        running = tuple(item.id for item in status.instances if is_running(item))
        if running:
            return _end_others(workload, status, never_worked, running)
        if never_worked.exit is not None and is_lost(never_worked):  # we ended it ourselves
            return Decision(WorkloadState.FAILED, status, "NEVER_READY", _never_ready(workload, never_worked))
        return Decision(WorkloadState.FAILED, status, reason_of(never_worked), sentence_of(workload, never_worked))
    instances: list[InstanceSeen] = []
    retired: list[InstanceSeen] = []
    waits: list[float] = []
    stuck: list[str] = []
    for item in status.instances:
        if item.phase != Phase.EXITED:
            instances.append(item)
            patience = (*_seconds_to_be_ready(workload, item, now), *_seconds_to_answer(workload, item, now))
            waits.extend(seconds for seconds in patience if seconds > 0)
            if any(seconds <= 0 for seconds in patience):
                stuck.append(item.id)
            continue
        restarted, wait_seconds = _restart(workload, item, now)
        instances.append(restarted)
        if wait_seconds > 0:
            waits.append(wait_seconds)
        else:
            retired.append(item)
    status = status.model_copy(
        update={"instances": tuple(instances), "retired": (*status.retired, *retired_of(retired, now))}
    )
    ready_count = sum(item.is_ready for item in instances)
    message = _readiness(instances, ready_count)
    return Decision(
        WorkloadState.RUNNING if ready_count or not workload.spec.instances else WorkloadState.STARTING,
        status,
        None if message is None else "NOT_READY",
        message,
        launch=tuple(item.index for item in instances if not item.is_launched),
        stop=tuple(stuck),
        insist_after_seconds=_SILENT_GRACE_SECONDS if stuck else None,
        again_after_seconds=min(waits, default=None),
    )


def _end_others(workload: Workload, status: WorkloadStatus, failed: InstanceSeen, running: tuple[str, ...]) -> Decision:
    message = f"Instance {failed.index} ended; ending the others."
    if failed.id in running:
        message = _never_ready(workload, failed)
    reason = reason_of(failed) if failed.exit is not None else "NEVER_READY"
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
    return not is_lost(item) or _was_overdue(workload, item)


def _seconds_to_be_ready(workload: Workload, item: InstanceSeen, now: datetime) -> tuple[float, ...]:
    """How long it may still take until it is ready for the first time; nothing where that does not count."""
    limit_seconds = workload.spec.ready_seconds
    if limit_seconds is None or workload.spec.ready_path is None or item.was_ready or item.started_at is None:
        return ()
    return (limit_seconds - (now - item.started_at).total_seconds(),)


def _silence(workload: Workload, before: InstanceSeen, item: InstanceSeen, now: datetime) -> InstanceSeen:
    """The instance with the moment from which on it has been ready no more, and, once it was ended for that, with this reason."""
    if item.is_ready or item.phase not in (Phase.RUNNING, Phase.EXITED):
        return item if item.silent_since is None else item.model_copy(update={"silent_since": None})
    if item.phase == Phase.RUNNING:
        return item.model_copy(update={"silent_since": now}) if before.is_ready else item
    if item.silent_since is None or item.exit is None or item.exit.cause != Cause.STOPPED:
        return item
    message = f"it did not answer for {_span(workload.spec.silent_seconds)}"
    return item.model_copy(update={"exit": item.exit.model_copy(update={"message": message})})


def _seconds_to_answer(workload: Workload, item: InstanceSeen, now: datetime) -> tuple[float, ...]:
    """How long one of a kind that has worked may still be silent until it is started again; nothing where that does not count."""
    spec = workload.spec
    if spec.silent_seconds is None or item.is_ready or not item.was_ready or not is_running(item):
        return ()
    if item.silent_since is not None:
        return (spec.silent_seconds - (now - item.silent_since).total_seconds(),)
    if spec.ready_seconds is None or item.started_at is None:
        return ()
    return (spec.ready_seconds - (now - item.started_at).total_seconds(),)  # it was started again, and is not ready yet


def _was_overdue(workload: Workload, item: InstanceSeen) -> bool:
    """Whether it was stopped because it had not become ready in time."""
    if item.ended_at is None or item.exit is None or item.exit.cause != Cause.STOPPED:
        return False
    return any(seconds <= 0 for seconds in _seconds_to_be_ready(workload, item, item.ended_at))


def _never_ready(workload: Workload, item: InstanceSeen) -> str:
    return f"Instance {item.index} was not ready for requests within {_span(workload.spec.ready_seconds)}."


def _span(seconds: float | None) -> str:
    seconds = seconds or 0.0
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:g} seconds"
