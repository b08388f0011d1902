"""Counts of calls in a row of equal spans of time, packed so that a day of many stages is read and summed within milliseconds. Pure.

All numbers of a span are lanes of 64 bits in one integer: its sums first, then a lane for each bucket of latencies. To add two spans is to
add two integers, whatever the number of lanes. A block is its spans one after the other, those without calls left out:

    number of the span (uint16), most calls under way (uint32), first bucket that counts, how many do (uint8 each), sums and buckets (uint64)
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from operator import add

from pydantic.alias_generators import to_camel

from modelyard.resources.endpoints.counting import LATENCY_BOUNDS, SUMS, Counts

_HEAD = struct.Struct("<HIBB")
_LANE_BYTES = 8
_LANE_BITS = 8 * _LANE_BYTES
_LANES = tuple(struct.Struct(f"<{count}Q") for count in range(len(SUMS) + len(LATENCY_BOUNDS) + 1))
_SUMS = _LANES[len(SUMS)]
_ALL_SUMS = (1 << _LANE_BITS * len(SUMS)) - 1
_EDGES = (0.0, *(1000 * bound for bound in LATENCY_BOUNDS))
_WIRE_NAMES = tuple(to_camel(name) for name in SUMS)
_SHARES = (("latencyP50Milliseconds", 0.5), ("latencyP90Milliseconds", 0.9), ("latencyP99Milliseconds", 0.99))


Tally = tuple[int, int]
"""Calls in a span, or in several: the lanes, and the most calls that were under way at once."""
NO_CALLS: Tally = (0, 0)


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans with calls, by number. Three lists and no object for each span: a day of ten stages has 14,400 of them.

    Attributes:
        numbers: rising.
        lanes, most: the two parts of each span's tally.
    """

    numbers: list[int]
    lanes: list[int]
    most: list[int]

    @property
    def total(self) -> Tally:
        """All of them together; of the calls under way the most that any saw."""
        return sum(self.lanes), max(self.most, default=0)

    def __iter__(self) -> Iterator[tuple[int, Tally]]:
        return zip(self.numbers, zip(self.lanes, self.most, strict=True), strict=True)

    def __or__(self, other: Spans) -> Spans:
        """The calls of both."""
        if self.numbers == other.numbers:  # as with stages that are all busy
            lanes, most = map(add, self.lanes, other.lanes), map(max, self.most, other.most)
            return Spans(self.numbers, list(lanes), list(most))
        both = dict(self)
        for number, tally in other:
            both[number] = total((both.get(number, NO_CALLS), tally))
        numbers = sorted(both)
        return Spans(numbers, [both[number][0] for number in numbers], [both[number][1] for number in numbers])


def spans_of(content: bytes, first: int = 0, last: int = 0xFFFF) -> Spans:
    """The block's spans with a number from `first` to `last`."""
    spans = Spans([], [], [])
    add_number, add_lanes, add_most = spans.numbers.append, spans.lanes.append, spans.most.append
    read_head, number_of, size = _HEAD.unpack_from, int.from_bytes, len(content)
    at = 0
    while at < size:
        number, most, lowest, count = read_head(content, at)
        middle = at + _HEAD.size + _SUMS.size
        end = middle + _LANE_BYTES * count
        if first <= number <= last:
            sums = number_of(content[at + _HEAD.size : middle], "little")
            add_number(number)
            add_lanes(sums | number_of(content[middle:end], "little") << 8 * (_SUMS.size + _LANE_BYTES * lowest))
            add_most(most)
        at = end
    return spans


def with_counts(content: bytes, number: int, news: Counts) -> bytes:
    """The block with these calls added to its span of this number."""
    lanes, most = tally_of(news)
    spans = spans_of(content)
    if not spans.numbers or number > spans.numbers[-1]:
        return content + _record(number, (lanes, most))
    return b"".join(_record(*item) for item in spans | Spans([number], [lanes], [most]))


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them together, as of `Spans`."""
    lanes = most = 0
    for more, active_max in tallies:
        lanes, most = lanes + more, max(most, active_max)
    return lanes, most


def tally_of(counts: Counts) -> Tally:
    """The same as lanes."""
    buckets = (counts.latencies.get(index, 0) for index in range(len(LATENCY_BOUNDS)))
    lanes = _LANES[-1].pack(*(getattr(counts, name) for name in SUMS), *buckets)
    return int.from_bytes(lanes, "little"), counts.active_max


def shown(tally: Tally) -> dict[str, object]:
    """As `schemas.CallCounts` has it on the wire. Percentiles are left out where nothing was called."""
    lanes, active_max = tally
    found: dict[str, object] = dict(zip(_WIRE_NAMES, _SUMS.unpack(_sums(lanes)), strict=True))
    found["activeMax"] = active_max
    first, buckets = _buckets(lanes)
    if buckets:
        reached = list(accumulate(_LANES[len(buckets) // _LANE_BYTES].unpack(buckets)))
        for name, share in _SHARES:
            found[name] = _milliseconds(reached, first, share)
    return found


def _milliseconds(reached: list[int], first: int, share: float) -> float:
    """The latency that this share of the calls kept to, interpolated in its bucket; `reached` counts the calls up to the end of each bucket from
    the first that has any."""
    wanted = share * reached[-1]
    index = bisect_left(reached, wanted)
    below = reached[index - 1] if index else 0
    low, high = _EDGES[first + index], _EDGES[first + index + 1]
    return round(low + (high - low) * (wanted - below) / (reached[index] - below), 3)


def _record(number: int, tally: Tally) -> bytes:
    lanes, most = tally
    first, buckets = _buckets(lanes)
    return _HEAD.pack(number, most, first, len(buckets) // _LANE_BYTES) + _sums(lanes) + buckets


def _sums(lanes: int) -> bytes:
    return (lanes & _ALL_SUMS).to_bytes(_SUMS.size, "little")


def _buckets(lanes: int) -> tuple[int, bytes]:
    """The first bucket that counts, and all from it to the last that does: most of them are 0."""
    buckets = lanes >> 8 * _SUMS.size
    first = max(0, (buckets & -buckets).bit_length() - 1) // _LANE_BITS
    buckets >>= _LANE_BITS * first
    return first, buckets.to_bytes(_LANE_BYTES * -(-buckets.bit_length() // _LANE_BITS), "little")
