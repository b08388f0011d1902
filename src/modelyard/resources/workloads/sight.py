"""What is seen of instances, and what follows from it for one instance alone. Pure; the decisions about a whole workload build on it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from modelyard.compute.port import Cause, Observation, Phase
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import (
    ExitSeen,
    InstanceSeen,
    NetworkSeen,
    Retired,
    Workload,
    WorkloadStatus,
    instance_id,
    plain_report,
    plain_text,
)

_PROBES_TO_MISS = 5
_LOST_LATE_SECONDS = 5.0
_STEPS_BEFORE_MEETING = frozenset({"starting", "fetching", "installing", "preparing"})


@dataclass(frozen=True, slots=True)
class Decision:
    """What should be.

    Attributes:
        launch: indices of instances to launch now.
        introduce: whether to introduce the instances to each other now.
        stop: ids of instances to stop now.
        insist_after_seconds: after how long these are told to end at once; None gives them their whole grace.
        status: what to remember of what was seen.
        again_after_seconds: look again then, though nobody asks.
    """

    state: WorkloadState
    status: WorkloadStatus
    reason: str | None = None
    message: str | None = None
    launch: tuple[int, ...] = ()
    introduce: bool = False
    stop: tuple[str, ...] = ()
    insist_after_seconds: float | None = None
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
            **dict(zip(("address", "more_addresses"), addresses_of(observation), strict=True)),
            "network": None
            if observation.network is None
            else NetworkSeen(
                host=observation.network.host,
                ports=dict(observation.network.ports),
                interface=observation.network.interface,
            ),
            "notes": tuple(plain_text(note) for note in observation.notes),
        }
    )


def addresses_of(observation: Observation) -> tuple[str | None, tuple[str, ...]]:
    """The first of the sockets that answer, and the others: those that the instance's report names, of the ones that it was given."""
    told = observation.report.get("sockets")
    names = [name for name in observation.sockets if isinstance(told, list) and name in told]
    first, *more = [observation.sockets[name] for name in names or list(observation.sockets)[:1]] or [None]
    return first, tuple(address for address in more if address is not None)


def blamed(items: Iterable[InstanceSeen]) -> InstanceSeen | None:
    """The one because of which the others can't go on, if there is one: whose process ended first.

    One fails, and the others fail after it for want of it. A loss is noticed late, so it goes before what failed shortly before it was.
    What was stopped is to blame only where nothing else is: we stop the others ourselves.
    """
    ended = sorted((item for item in items if has_failed(item) or _is_failing(item)), key=_ended_at)
    limited = next((item for item in ended if _cause(item) == Cause.TIME_LIMIT), None)
    own = [item for item in ended if not is_lost(item)]
    lost = next((item for item in ended if _cause(item) == Cause.LOST), None)
    if limited is not None or not own:
        return limited or lost or (ended[0] if ended else None)
    if lost is not None and _ended_at(lost) <= _ended_at(own[0]) + timedelta(seconds=_LOST_LATE_SECONDS):
        return lost
    return own[0]


def is_waiting_for_others(item: InstanceSeen) -> bool:
    """Whether it could begin, or has begun."""
    step = item.report.get("step")
    return item.network is not None and isinstance(step, str) and step not in _STEPS_BEFORE_MEETING


def retired_of(items: Iterable[InstanceSeen], now: datetime) -> tuple[Retired, ...]:
    """What these leave behind."""
    return tuple(Retired(id=item.id, retired_at=now) for item in items if item.is_launched)


def is_running(item: InstanceSeen) -> bool:
    """Whether it was launched and has not ended."""
    return item.is_launched and item.phase != Phase.EXITED


def has_failed(item: InstanceSeen) -> bool:
    """Whether it has ended, and not well."""
    return item.exit is not None and not (item.exit.cause == Cause.EXITED and item.exit.code == 0)


def is_lost(item: InstanceSeen) -> bool:
    """The machine went down, or the platform was shut down: in both cases nobody wanted this workload to end."""
    return item.exit is not None and item.exit.cause in (Cause.LOST, Cause.STOPPED)


def all_succeeded(status: WorkloadStatus) -> bool:
    """Whether all have ended well."""
    return bool(status.instances) and all(
        item.exit is not None and item.exit.cause == Cause.EXITED and item.exit.code == 0 for item in status.instances
    )


def reason_of(item: InstanceSeen) -> str:
    """The cause of its end in one word."""
    return item.exit.cause if item.exit else "FAILED"


def sentence_of(workload: Workload, item: InstanceSeen) -> str:
    """Why it ended: the process's own words where it has said something, else how it ended."""
    how = item.exit.message if item.exit else "Its process has failed; what is to be kept is being kept."
    if _cause(item) == Cause.TIME_LIMIT:  # the limit is that of all attempts together, and of all instances
        return re.sub(r"time limit of \S+ s\b", f"time limit of {_duration(workload.spec.timeout_seconds)}", how)
    own_words = item.report.get("message") if item.report.get("step") == "failed" else None
    where = f"Instance {item.index}: " if workload.spec.instances > 1 else ""
    is_own_end = _cause(item) in (None, Cause.EXITED, Cause.SIGNAL)
    return f"{where}{own_words[:2000] if isinstance(own_words, str) and own_words and is_own_end else how}"


def _is_failing(item: InstanceSeen) -> bool:
    """Its process has failed, and the instance is still keeping what is to be kept. This is its own word, which harms only its own."""
    code = item.report.get("exit_code")
    return is_running(item) and isinstance(code, int) and code != 0


def _ended_at(item: InstanceSeen) -> datetime:
    """When its process ended, which may be long before the instance does."""
    told = item.report.get("ended_at")
    known = [] if item.ended_at is None else [item.ended_at]
    if isinstance(told, str):
        with suppress(ValueError):
            known.append(datetime.fromisoformat(told).astimezone(UTC))
    return min(known, default=datetime.max.replace(tzinfo=UTC) - timedelta(days=1))


def _cause(item: InstanceSeen) -> str | None:
    return None if item.exit is None else item.exit.cause


def _duration(seconds: float | None) -> str:
    """In words, e.g. `90 s` or `10 minutes`."""
    seconds = seconds or 0.0
    return f"{seconds / 60:g} minutes" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:g} s"
