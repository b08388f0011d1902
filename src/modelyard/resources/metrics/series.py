"""How new points change a series: what goes into its tail, what is packed into blocks, and what it comes to. Pure.

A point that is there already (same step, same time) stays as it is, so that whatever is sent or read twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite

from modelyard.resources.metrics.blocks import Columns, Extreme, Spot, Summary, before, joined, summarise, tail_limit


@dataclass(slots=True)
class Series:
    """One metric of one instance. `low` and `high` are the lowest and the highest finite value; their times are not kept."""

    id: int
    instance: int
    name: str
    directory: str | None = None
    point_count: int = 0
    packed_count: int = 0
    first_step: int = 0
    last: Spot = (0, 0)
    last_value: float = 0.0
    low: Extreme | None = None
    high: Extreme | None = None
    odd_count: int = 0
    tail: Columns = field(default_factory=Columns)


@dataclass(frozen=True, slots=True)
class Change:
    """What is left to do in blocks after points were added: `late` go between older points, `full` come after all of them."""

    late: Columns
    full: Columns


_NOTHING = Change(Columns(), Columns())


def add(series: Series, new: Columns) -> Change:
    """Add points, in order, to the tail and the summary. What the answer holds is not in the series yet, but for `full` in its summary."""
    if series.point_count and len(new.steps) == 1 and new.first > series.last and _has_room(series):
        _append(series, new)
        return _NOTHING
    late = Columns()
    if series.packed_count:
        late, new = _late(series, new)
    series.tail, fresh = joined(series.tail, new)
    count(series, fresh)
    if len(series.tail) <= tail_limit(series.id):
        return Change(late, Columns())
    full, series.tail = series.tail, Columns()
    series.packed_count += len(full)
    return Change(late, full)


def _has_room(series: Series) -> bool:
    return len(series.tail.steps) < tail_limit(series.id)


def _append(series: Series, new: Columns) -> None:
    """Add a single point that comes after all others: what a training that logs each step adds to each of its many series."""
    step, time, value = new.steps[0], new.times[0], new.values[0]
    tail = series.tail
    tail.steps.append(step)
    tail.times.append(time)
    tail.values.append(value)
    series.last, series.last_value = (step, time), value
    series.point_count += 1
    if not isfinite(value):
        series.odd_count += 1
        return
    if series.low is None or value < series.low.value:
        series.low = Extreme(step, time, value)
    if series.high is None or value > series.high.value:
        series.high = Extreme(step, time, value)


def count(series: Series, fresh: Columns) -> None:
    """Let points that were added count in what the series comes to."""
    if not len(fresh):
        return
    summary = summarise(fresh) if len(fresh) > 1 else _of_one(fresh)
    _widen(series, summary)
    if not series.point_count or summary.last > series.last:
        series.last, series.last_value = summary.last, fresh.values[-1]
    series.first_step = min(series.first_step, summary.first[0]) if series.point_count else summary.first[0]
    series.point_count += summary.count


def recount(series: Series, packed: list[Summary], last_packed: Columns) -> None:
    """What the series comes to, from its blocks and its tail alone; `last_packed`: the last block unpacked, empty where there is none."""
    series.point_count = series.packed_count = sum(summary.count for summary in packed)
    series.low = series.high = None
    series.odd_count = 0
    for summary in packed:
        _widen(series, summary)
    if packed:
        series.first_step = packed[0].first[0]
        series.last, series.last_value = last_packed.last, last_packed.values[-1]
    count(series, series.tail)


def _late(series: Series, new: Columns) -> tuple[Columns, Columns]:
    """The points that belong among packed ones, and the others."""
    if len(series.tail):
        return before(new, series.tail.first)
    step, time = series.last
    return before(new, (step, time + 1))


def _of_one(columns: Columns) -> Summary:
    """`summarise` for a single point: what a training that logs each step adds to each of its series."""
    value = columns.values[0]
    extreme = Extreme(*columns.first, value)
    if isfinite(value):
        return Summary(1, columns.first, columns.first, extreme, extreme, None, 0)
    return Summary(1, columns.first, columns.first, None, None, extreme, 1)


def _widen(series: Series, summary: Summary) -> None:
    if summary.low is not None and (series.low is None or summary.low.value < series.low.value):
        series.low = summary.low
    if summary.high is not None and (series.high is None or summary.high.value > series.high.value):
        series.high = summary.high
    series.odd_count += summary.odd_count
