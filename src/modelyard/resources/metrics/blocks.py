"""Points of one series in columns, and how they are kept.

A series is kept in blocks of about a thousand points, each compressed, and a short uncompressed tail of the newest ones, so that adding a point
costs a few bytes and not a block. Everything is ordered by step and, within a step, by time. Beside each block stand its first, last, lowest
and highest point: a long history can be drawn from those alone. Pure: knows no database.
"""

from __future__ import annotations

import math
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from operator import sub

BLOCK_POINTS = 1024
_TAIL_POINTS, _TAIL_SPREAD = 48, 32
_LEVEL = 1
_WIDTH = 8
_VERSION = b"\x01"

Spot = tuple[int, int]
"""Where a point stands: its step, and its time in microseconds since 1970."""


@dataclass(slots=True)
class Columns:
    """Points in columns, in the order of their spots, each spot once."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, part: slice) -> Columns:
        return Columns(self.steps[part], self.times[part], self.values[part])

    @property
    def first(self) -> Spot:
        """Where the first point stands."""
        return self.steps[0], self.times[0]

    @property
    def last(self) -> Spot:
        """Where the last point stands."""
        return self.steps[-1], self.times[-1]

    def spots(self) -> Iterator[Spot]:
        """Where the points stand."""
        return zip(self.steps, self.times, strict=True)

    def extend(self, other: Columns) -> None:
        """Add points that come after all of these."""
        self.steps.extend(other.steps)
        self.times.extend(other.times)
        self.values.extend(other.values)


@dataclass(frozen=True, slots=True)
class Extreme:
    """A value and where it stands."""

    step: int
    time: int
    value: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a stretch of points comes to.

    Attributes:
        low, high: the lowest and the highest finite value, the first of several; None where none is finite.
        odd: the first value that is infinite or no number, `odd_count` how many are.
    """

    count: int
    first: Spot
    last: Spot
    low: Extreme | None
    high: Extreme | None
    odd: Extreme | None
    odd_count: int


def columns_of(points: Iterable[tuple[int, int, float]]) -> Columns:
    """Points (step, time, value) in order; of several on one spot the last one stays."""
    points = list(points)
    if len(points) == 1:
        ((step, time, value),) = points
        return Columns(array("q", (step,)), array("q", (time,)), array("d", (value,)))
    kept = {(step, time): value for step, time, value in points}
    columns = Columns()
    for (step, time), value in sorted(kept.items(), key=_spot_of) if not _is_rising(kept) else kept.items():
        columns.steps.append(step)
        columns.times.append(time)
        columns.values.append(value)
    return columns


def joined(old: Columns, new: Columns) -> tuple[Columns, Columns]:
    """Both together, and what of `new` was new: on a spot where both have a point, the old one stays."""
    if not len(old) or not len(new) or old.last < new.first:
        both = old[:]
        both.extend(new)
        return both, new
    known = set(old.spots())
    rows = zip(new.steps, new.times, new.values, strict=True)
    fresh = [(step, time, value) for step, time, value in rows if (step, time) not in known]
    return columns_of([*zip(old.steps, old.times, old.values, strict=True), *fresh]), columns_of(fresh)


def before(columns: Columns, spot: Spot) -> tuple[Columns, Columns]:
    """The points before a spot, and the others."""
    at = bisect_left(list(columns.spots()), spot)
    return columns[:at], columns[at:]


def chunked(columns: Columns) -> list[Columns]:
    """Cut into full blocks and a last one that takes what is left."""
    return [columns[begin : begin + BLOCK_POINTS] for begin in range(0, len(columns), BLOCK_POINTS)]


def halved(columns: Columns) -> list[Columns]:
    """Cut into blocks of like size, which leave room for points that come in between."""
    size = len(columns)
    count = -(-size // BLOCK_POINTS)
    return [columns[size * index // count : size * (index + 1) // count] for index in range(count)]


def tail_limit(series_id: int) -> int:
    """How many points the tail of a series takes. It differs from series to series, so that not all are packed at once."""
    return _TAIL_POINTS + series_id % _TAIL_SPREAD


def pack(columns: Columns) -> bytes:
    """Compress a block: differences of steps and of times, values as they are, bytes of like weight side by side."""
    content = b"".join(
        (_woven(_differences(columns.steps)), _woven(_differences(columns.times)), _woven(_little(columns.values)))
    )
    return _VERSION + zlib.compress(content, _LEVEL)


def unpack(content: bytes) -> Columns:
    """The other side of `pack`."""
    if content[:1] != _VERSION:
        raise ValueError("a block of points was written by another version")
    raw = zlib.decompress(memoryview(content)[1:])
    size = len(raw) // 3
    columns = Columns()
    for index, column in enumerate((columns.steps, columns.times, columns.values)):
        column.frombytes(_unwoven(raw[index * size : (index + 1) * size]))
        _swap(column)
    columns.steps = array("q", accumulate(columns.steps))
    columns.times = array("q", accumulate(columns.times))
    return columns


def pack_tail(columns: Columns) -> bytes:
    """The tail as plain bytes: it is read and written with every point, and short."""
    return _little(columns.steps) + _little(columns.times) + _little(columns.values)


def unpack_tail(content: bytes | None) -> Columns:
    """The other side of `pack_tail`."""
    if not content:
        return Columns()
    size = len(content) // 3
    steps, times = array("q", content[:size]), array("q", content[size : 2 * size])
    values = array("d", content[2 * size :])
    for column in (steps, times, values):
        _swap(column)
    return Columns(steps, times, values)


def summarise(columns: Columns) -> Summary:
    """Summary of at least one point."""
    values: Sequence[float] = columns.values
    odd_count = 0
    odd: Extreme | None = None
    if not math.isfinite(
        sum(values)
    ):  # one that is not finite spoils the sum; so may an overflow, which the look below forgives
        odd_indices = [index for index, value in enumerate(values) if not math.isfinite(value)]
        odd_count = len(odd_indices)
        odd = _extreme(columns, odd_indices[0]) if odd_indices else None
        values = [value for value in values if math.isfinite(value)]
    low = _extreme(columns, columns.values.index(min(values))) if values else None
    high = _extreme(columns, columns.values.index(max(values))) if values else None
    return Summary(len(columns), columns.first, columns.last, low, high, odd, odd_count)


def _extreme(columns: Columns, index: int) -> Extreme:
    return Extreme(columns.steps[index], columns.times[index], columns.values[index])


def _spot_of(item: tuple[Spot, float]) -> Spot:
    return item[0]


def _is_rising(spots: Iterable[Spot]) -> bool:
    return all(one < other for one, other in pairwise(spots))


def _differences(column: array[int]) -> bytes:
    differences = array("q", column[:1])
    differences.extend(map(sub, column[1:], column))
    return _little(differences)


def _little(column: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _swap(column: array[int] | array[float]) -> None:
    if sys.byteorder == "big":
        column.byteswap()


def _woven(content: bytes) -> bytes:
    return b"".join([content[index::_WIDTH] for index in range(_WIDTH)])


def _unwoven(content: bytes) -> bytes:
    size = len(content) // _WIDTH
    woven = bytearray(len(content))
    for index in range(_WIDTH):
        woven[index::_WIDTH] = content[index * size : (index + 1) * size]
    return bytes(woven)
