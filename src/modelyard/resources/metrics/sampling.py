"""Fewer points that draw the same curve.

A history is cut into buckets of equally many points; of each bucket the lowest, the highest and the first value that is no number stay, and of
the whole the first and the last point. No peak is lost, whatever the width of the drawing. A bucket need not be looked at point by point:
summaries of blocks do as well. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelyard.resources.metrics.blocks import BLOCK_POINTS, Columns, Extreme, Summary, columns_of, summarise


def bucket_points(count: int, max_points: int, *, has_odd: bool) -> int:
    """How many points a bucket has so that what stays of `count` points is at most `max_points` (4 or more)."""
    kept_per_bucket = 3 if has_odd else 2
    bucket_count = max(1, (max_points - 2) // kept_per_bucket)
    return -(-count // bucket_count)


def can_use_summaries(count: int, max_points: int, *, has_odd: bool) -> bool:
    """Whether buckets are so large that whole blocks fit into them."""
    return bucket_points(count, max_points, has_odd=has_odd) >= 2 * BLOCK_POINTS


def sample(columns: Columns, max_points: int) -> Columns:
    """At most `max_points` of the points."""
    if len(columns) <= max_points:
        return columns
    whole = summarise(columns)
    size = bucket_points(len(columns), max_points, has_odd=whole.odd_count > 0)
    buckets = [summarise(columns[begin : begin + size]) for begin in range(0, len(columns), size)]
    ends = [Extreme(columns.steps[at], columns.times[at], columns.values[at]) for at in (0, -1)]
    return columns_of((each.step, each.time, each.value) for each in [*ends, *_kept(buckets)])


def sample_summaries(stretches: Sequence[Summary], ends: Sequence[Extreme], max_points: int) -> Columns:
    """At most `max_points` of the points that the stretches, in order, stand for. `ends`: the first and the last of all points."""
    count = sum(stretch.count for stretch in stretches)
    size = bucket_points(count, max_points, has_odd=any(stretch.odd_count for stretch in stretches))
    buckets: list[Summary] = []
    filled = 0
    for stretch in stretches:
        if buckets and filled + stretch.count <= size:
            buckets[-1] = joined(buckets[-1], stretch)
            filled += stretch.count
        else:
            buckets.append(stretch)
            filled = stretch.count
    kept = columns_of((each.step, each.time, each.value) for each in [*ends, *_kept(buckets)])
    return sample(kept, max_points)  # stretches don't fit exactly, so there may be some buckets too many


def joined(one: Summary, other: Summary) -> Summary:
    """The summary of two stretches, the first one first."""
    low = min((each.low for each in (one, other) if each.low is not None), key=_value, default=None)
    high = max((each.high for each in (one, other) if each.high is not None), key=_value, default=None)
    return Summary(
        one.count + other.count, one.first, other.last, low, high, one.odd or other.odd, one.odd_count + other.odd_count
    )


def _kept(buckets: Iterable[Summary]) -> Iterable[Extreme]:
    return (each for bucket in buckets for each in (bucket.low, bucket.high, bucket.odd) if each is not None)


def _value(extreme: Extreme) -> float:
    return extreme.value
