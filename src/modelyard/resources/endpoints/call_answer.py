"""What is told of calls: the JSON of `schemas.CallStatisticsOne`, from blocks of counts. Pure.

A page draws an endpoint as a whole again and again, and the time of most blocks is over. What was told of those (`Told`) is taken back to be told
again, so that only the last hours are read, added up and written anew, however many stages there are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from modelyard.kit.errors import Fault, Invalid
from modelyard.resources.endpoints.call_blocks import NO_CALLS, Spans, Tally, shown, spans_of, total
from modelyard.resources.endpoints.schemas import CALL_SERIES
from modelyard.resources.endpoints.table import CallBlockRow
from modelyard.wire import Header

MAX_ALL_POINTS = 100_000

SeriesKey = tuple[str, str]
"""Ids of a stage and of a model on it: without the model all of the stage, without both all of the endpoint."""
WHOLE: SeriesKey = ("", "")


class Told(NamedTuple):
    """What was told of the calls in the time of a block: the endpoint's points, as JSON without brackets, and what each series came to."""

    points: bytes
    point_count: int
    totals: Mapping[SeriesKey, Tally]


class Period(NamedTuple):
    """From `first` to `last`, in seconds since 1970, in spans of so many seconds."""

    first: int
    last: int
    span_seconds: int


def answer(
    endpoint_id: str,
    about: Mapping[str, object],
    blocks: Iterable[CallBlockRow],
    period: Period,
    wanted: Collection[str],
    known: Mapping[int, Told],
) -> tuple[bytes, dict[int, Told]]:
    """The JSON, and what was told of each block's time where the endpoint's points are wanted.

    Args:
        about: fields of the answer besides the series.
        blocks: oldest first.
        wanted: whose points are told: words of `CALL_SERIES`, ids of stages and models, or nothing for all.
        known: by the blocks' begin, what was told before; their blocks are left out of `blocks`.

    Raises `Invalid` where these are more points than are told at once.
    """
    totals: dict[int, dict[SeriesKey, Tally]] = {}
    spans: dict[SeriesKey, dict[int, Spans]] = {}
    size = period.span_seconds
    for block in blocks:
        begin = block.starts_at
        found = spans_of(block.content, (period.first - begin) // size, (period.last - begin) // size)
        if not found.numbers:
            continue
        sums, here = found.total, totals.setdefault(begin, {})
        for key in _keys(block, endpoint_id):
            here[key] = total((here.get(key, NO_CALLS), sums))
            if _is_wanted(key, endpoint_id, wanted):
                series = spans.setdefault(key, {})
                series[begin] = series[begin] | found if begin in series else found
    _check_count(known, spans)
    points = {
        key: {begin: _points(begin, size, each) for begin, each in series.items()} for key, series in spans.items()
    }
    points[WHOLE] = {**points.get(WHOLE, {}), **{begin: told.points for begin, told in known.items()}}
    told = {
        begin: Told(points[WHOLE][begin], len(each.numbers), totals[begin])
        for begin, each in spans.get(WHOLE, {}).items()
    }
    return _written(
        endpoint_id, about, {**totals, **{begin: told.totals for begin, told in known.items()}}, points
    ), told


def _keys(block: CallBlockRow, endpoint_id: str) -> tuple[SeriesKey, ...]:
    """The series that a block's calls belong to; what an address as a whole has turned away belongs to no model."""
    stage = (block.stage_id, "")
    if block.endpoint_model_id in (block.stage_id, endpoint_id):
        return WHOLE, stage
    return WHOLE, stage, (block.stage_id, block.endpoint_model_id)


def _is_wanted(key: SeriesKey, endpoint_id: str, wanted: Collection[str]) -> bool:
    stage_id, model_id = key
    code = CALL_SERIES[bool(stage_id) + bool(model_id)]
    return not wanted or code in wanted or (model_id or stage_id or endpoint_id) in wanted


def _check_count(known: Mapping[int, Told], spans: Mapping[SeriesKey, Mapping[int, Spans]]) -> None:
    count = sum(told.point_count for told in known.values())
    count += sum(len(each.numbers) for series in spans.values() for each in series.values())
    if count > MAX_ALL_POINTS:
        sentence = (
            f"asks for {count:,} points, of which {MAX_ALL_POINTS:,} are told at once; name the series to be drawn"
        )
        raise Invalid([Fault("seriesList", f"{sentence} ({', '.join(CALL_SERIES)}, or ids of stages and models)")])


def _points(begin: int, span_seconds: int, spans: Spans) -> bytes:
    """As JSON without brackets."""
    points = [{"time": _moment(begin + number * span_seconds), **shown(tally)} for number, tally in spans]
    return orjson.dumps(points)[1:-1]


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _written(
    endpoint_id: str,
    about: Mapping[str, object],
    totals: Mapping[int, Mapping[SeriesKey, Tally]],
    points: Mapping[SeriesKey, Mapping[int, bytes]],
) -> bytes:
    sums: dict[SeriesKey, Tally] = {WHOLE: NO_CALLS}
    for _, here in sorted(totals.items()):
        for key, tally in here.items():
            sums[key] = total((sums.get(key, NO_CALLS), tally))

    def series(key: SeriesKey) -> dict[str, object]:
        """As `schemas.CallSeries` has it on the wire."""
        pieces = [piece for _, piece in sorted(points.get(key, {}).items())]
        return {"total": shown(sums[key]), "pointList": orjson.Fragment(b"[%b]" % b",".join(pieces))}

    statistics = {
        **about,
        "endpoint": {"endpointId": endpoint_id, **series(WHOLE)},
        "stageList": [{"endpointStageId": key[0], **series(key)} for key in sums if key != WHOLE and not key[1]],
        "modelList": [{"endpointStageId": key[0], "endpointModelId": key[1], **series(key)} for key in sums if key[1]],
    }
    return orjson.dumps({"header": Header().model_dump(by_alias=True), "statistics": statistics})
