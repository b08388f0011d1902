"""Counts of calls: what happened between two readings of the gateway's counters, and sums of such. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.resources.endpoints.model import MIRRORED
from modelyard.resources.routes.model import CallCounters, Decisions

SUMS = (
    "calls_count",
    "success_count",
    "redirect_count",
    "client_error_count",
    "server_error_count",
    "timeout_count",
    "received_bytes",
    "sent_bytes",
    "mirrored_count",
    "size_refused_count",
    "key_refused_count",
    "address_refused_count",
    "rate_refused_count",
)
_READ = SUMS[:8]
LATENCY_BOUNDS = tuple(
    float(f"{step * 10.0**power:.3g}")
    for power in range(-4, 3)
    for step in (1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.3, 8.0)
)
"""Upper bounds in seconds, 0.1 ms to 800 s, of the buckets that latencies are kept in."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls in a span of time.

    Attributes:
        mirrored_count: of the calls, copies of another stage's requests.
        size_refused_count, key_refused_count, address_refused_count, rate_refused_count: requests that the gateway turned away, which
            are no calls: no model saw them.
        active_max: the most that were seen under way at once.
        latencies: index in `LATENCY_BOUNDS` → calls that took at most so long, and longer than the bound before.
    """

    calls_count: int = 0
    success_count: int = 0
    redirect_count: int = 0
    client_error_count: int = 0
    server_error_count: int = 0
    timeout_count: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    mirrored_count: int = 0
    size_refused_count: int = 0
    key_refused_count: int = 0
    address_refused_count: int = 0
    rate_refused_count: int = 0
    active_max: int = 0
    latencies: Mapping[int, int] = field(default_factory=dict[int, int])

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened."""
        return not (self.active_max or any(getattr(self, name) for name in SUMS))

    def stored(self) -> list[Any]:
        """As a short JSON value; `restored` reads it."""
        return [
            *(getattr(self, name) for name in SUMS),
            self.active_max,
            {str(k): n for k, n in self.latencies.items()},
        ]


def restored(value: Sequence[Any]) -> Counts:
    """The counts of `Counts.stored`."""
    *numbers, latencies = value
    return Counts(*numbers, latencies={int(key): count for key, count in latencies.items()})


def refused(seen: Decisions) -> Counts:
    """What the gateway turned away, as counts."""
    return Counts(
        size_refused_count=seen.size_count,
        key_refused_count=seen.key_count,
        address_refused_count=seen.address_count,
        rate_refused_count=seen.rate_count,
    )


def counted(seen: CallCounters, *, is_mirror: bool = False) -> Counts:
    """A reading of the gateway, as counts."""
    latencies: dict[int, int] = {}
    for bound, count in seen.latencies:
        if count:
            index = min(bisect_left(LATENCY_BOUNDS, bound * 0.999), len(LATENCY_BOUNDS) - 1)
            latencies[index] = latencies.get(index, 0) + count
    sums = {name: getattr(seen, name) for name in _READ}
    mirrored_count = seen.calls_count if is_mirror else 0
    return Counts(**sums, mirrored_count=mirrored_count, active_max=seen.active_count, latencies=latencies)


def since(before: Counts | None, now: Counts) -> Counts:
    """What happened between two readings. Counters that fell began anew, so all that they show has happened since."""
    if before is None or any(getattr(now, name) < getattr(before, name) for name in SUMS):
        return now
    sums = {name: max(0, getattr(now, name) - getattr(before, name)) for name in SUMS}
    latencies = {
        index: count - before.latencies.get(index, 0)
        for index, count in now.latencies.items()
        if count > before.latencies.get(index, 0)
    }
    return Counts(**sums, active_max=now.active_max, latencies=latencies)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model's counters say: those of its own calls, and those of the copies that it gets as a mirror.

    They are kept apart because the gateway begins each anew by itself: the copies' when nobody sends copies any more.
    """

    own: Counts = Counts()
    copies: Counts = Counts()

    def stored(self) -> list[Any]:
        """As a short JSON value; `restored_reading` reads it."""
        return [self.own.stored(), self.copies.stored()]


def restored_reading(value: Sequence[Any]) -> Reading:
    """The reading of `Reading.stored`."""
    if len(value) > 2:  # written when the two were not kept apart
        return Reading(restored(value))
    own, copies = value
    return Reading(restored(own), restored(copies))


def readings(counters: Iterable[CallCounters]) -> dict[str, Reading]:
    """What the gateway counts, by model."""
    found: dict[str, Reading] = {}
    for item in counters:
        id = item.name.removesuffix(MIRRORED)
        before = found.get(id, Reading())
        if id == item.name:
            found[id] = replace(before, own=counted(item))
        else:
            found[id] = replace(before, copies=counted(item, is_mirror=True))
    return found


def happened(before: Reading | None, now: Reading) -> Counts:
    """What happened between two readings of a model's counters."""
    known = before or Reading()
    return added([since(known.own, now.own), since(known.copies, now.copies)])


def added(items: Iterable[Counts]) -> Counts:
    """All of them together; of the calls under way the most that any saw."""
    sums = dict.fromkeys(SUMS, 0)
    active_max = 0
    latencies: dict[int, int] = {}
    for item in items:
        for name in SUMS:
            sums[name] += getattr(item, name)
        active_max = max(active_max, item.active_max)
        for index, count in item.latencies.items():
            latencies[index] = latencies.get(index, 0) + count
    return Counts(**sums, active_max=active_max, latencies=latencies)
