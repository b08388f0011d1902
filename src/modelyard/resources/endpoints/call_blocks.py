"""Counts of calls in a row of equal spans of time, packed so that a day of many stages is read and summed within milliseconds. Pure.

All numbers of a span are lanes of 64 bits in one integer: its sums first, then a lane for each bucket of latencies. To add two spans is to
add two integers, whatever the number of lanes. A block is its spans one after the other, those without calls left out:

    number of the span (uint16), most calls under way (uint32), first bucket that counts, how many do (uint8 each), sums and buckets (uint64)
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate

from pydantic.alias_generators import to_camel

from modelyard.resources.endpoints.counting import LATENCY_BOUNDS, SUMS, Counts

_HEAD = struct.Struct("<HIBB")
_LANE_BYTES = 8
_SUMS_BYTES = _LANE_BYTES * len(SUMS)
_LANES = struct.Struct(f"<{len(SUMS) + len(LATENCY_BOUNDS)}Q")
_WIRE_NAMES = tuple(to_camel(name) for name in SUMS)
_SHARES = (("latencyP50Milliseconds", 0.5), ("latencyP90Milliseconds", 0.9), ("latencyP99Milliseconds", 0.99))


Tally = tuple[int, int]
"""Calls in a span, or in several: the lanes, and the most calls that were under way at once. No class: thousands are made for each answer."""
NO_CALLS: Tally = (0, 0)


def with_counts(content: bytes, number: int, news: Counts) -> bytes:
    """The block with these calls added to its span of this number."""
    records = dict(_records(content))
    before = records.get(number)
    tally = tally_of(news)
    if before is not None:
        tally = total([before, tally])
    if before is None and (not records or number > max(records)):
        return content + _record(number, tally)
    records[number] = tally
    return b"".join(_record(*item) for item in sorted(records.items()))


def spans_of(content: bytes, first: int, last: int) -> list[tuple[int, Tally]]:
    """The block's spans with a number from `first` to `last`, by number."""
    return _records(content, first, last)


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them together; of the calls under way the most that any saw."""
    lanes = most = 0
    for more, active_max in tallies:
        lanes += more
        if active_max > most:  # as max() would, in a third of the time
            most = active_max
    return lanes, most


def tally_of(counts: Counts) -> Tally:
    """The same as lanes."""
    buckets = (counts.latencies.get(index, 0) for index in range(len(LATENCY_BOUNDS)))
    lanes = _LANES.pack(*(getattr(counts, name) for name in SUMS), *buckets)
    return int.from_bytes(lanes, "little"), counts.active_max


def shown(tally: Tally) -> dict[str, object]:
    """As `schemas.CallCounts` has it on the wire. Percentiles are left out where nothing was called."""
    number, active_max = tally
    lanes = _LANES.unpack(number.to_bytes(_LANES.size, "little"))
    found: dict[str, object] = dict(zip(_WIRE_NAMES, lanes, strict=False))
    found["activeMax"] = active_max
    reached = list(accumulate(lanes[len(SUMS) :]))
    if reached[-1]:
        for name, share in _SHARES:
            found[name] = _milliseconds(reached, share)
    return found


def _milliseconds(reached: list[int], share: float) -> float:
    """The latency that this share of the calls kept to, interpolated in its bucket; `reached` counts the calls up to each bucket's end."""
    wanted = share * reached[-1]
    index = bisect_left(reached, wanted)
    below = reached[index - 1] if index else 0
    low = LATENCY_BOUNDS[index - 1] if index else 0.0
    return round(1000 * (low + (LATENCY_BOUNDS[index] - low) * (wanted - below) / (reached[index] - below)), 3)


def _records(content: bytes, first: int = 0, last: int = 0xFFFF) -> list[tuple[int, Tally]]:
    # A day of ten stages has 14,400 of them: this loop is what reading it takes.
    found: list[tuple[int, Tally]] = []
    read_head, number_of, size = _HEAD.unpack_from, int.from_bytes, len(content)
    at = 0
    while at < size:
        number, active_max, lowest, count = read_head(content, at)
        middle = at + _HEAD.size + _SUMS_BYTES
        end = middle + _LANE_BYTES * count
        if first <= number <= last:
            sums = number_of(content[at + _HEAD.size : middle], "little")
            buckets = number_of(content[middle:end], "little") << 8 * (_SUMS_BYTES + _LANE_BYTES * lowest)
            found.append((number, (sums | buckets, active_max)))
        at = end
    return found


def _record(number: int, tally: Tally) -> bytes:
    lanes = tally[0].to_bytes(_LANES.size, "little")
    buckets = lanes[_SUMS_BYTES:].rstrip(b"\0")
    first = (len(buckets) - len(buckets.lstrip(b"\0"))) // _LANE_BYTES
    count = -(-len(buckets) // _LANE_BYTES) - first
    start = _SUMS_BYTES + _LANE_BYTES * first
    return _HEAD.pack(number, tally[1], first, count) + lanes[:_SUMS_BYTES] + lanes[start : start + _LANE_BYTES * count]
