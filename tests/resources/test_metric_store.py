"""The metric store on both databases: what goes in comes out, once, in order, whatever the order of arrival."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from metric_places import CALLER, KnownRuns, make_metric_tables, points, run, same
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.engine import Database
from modelyard.kit.errors import Invalid, NotFound
from modelyard.kit.ids import IdempotencyKey
from modelyard.kit.paging import PageRequest
from modelyard.resources.metrics import arrivals, store
from modelyard.resources.metrics.errors import ForeignRun
from modelyard.resources.metrics.model import Limits, Owner, Point
from modelyard.resources.metrics.service import History, HistoryRequest, Metrics
from modelyard.resources.metrics.table import (
    MetricArrivalRow,
    MetricBlockRow,
    MetricFileRow,
    MetricRunRow,
    MetricSeriesRow,
)
from modelyard.resources.projects.model import Caller, TokenKind

ALL = PageRequest()
RUNS = KnownRuns([run("a"), run("b")])


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await make_metric_tables(database)
    yield database
    await database.close()


@pytest.fixture
def metrics(database: Database) -> Metrics:
    return Metrics(database)


async def write(metrics: Metrics, batch: Sequence[Point], run_id: str = "a", instance: int = 0) -> None:
    await metrics.write(RUNS, CALLER, run_id, instance, batch)


async def history(metrics: Metrics, name: str, run_id: str = "a", **wanted: int) -> History:
    request = HistoryRequest(names=(name,), **{"max_points": 5000, **wanted})
    report = await metrics.report(RUNS, CALLER, run_id, request, ALL)
    (found,) = report.metrics.items
    return found


def wide(number: int, each: int = 1) -> list[Point]:
    """The n-th write of a run that has many metrics, with so many points of each."""
    return [point for index in range(25) for point in points(f"gauge/{index}", [0.5] * each, first_step=number * each)]


async def test_points_come_back_with_what_they_come_to(metrics: Metrics) -> None:
    await write(metrics, [*points("loss", [3.0, 1.0, 2.0]), *points("accuracy", [0.5])])
    found = await history(metrics, "loss")
    assert found.points is not None
    assert found.points.steps.tolist() == [0, 1, 2]
    assert found.points.values.tolist() == [3.0, 1.0, 2.0]
    assert found.points.times.tolist() == [1_700_000_000_000_000 + step * 1_000_000 for step in range(3)]
    series = found.series
    assert (series.point_count, series.first_step, series.last, series.last_value) == (
        *(3, 0),
        (2, 1_700_000_002_000_000),
        2.0,
    )
    assert series.low is not None and (series.low.step, series.low.value) == (1, 1.0)
    assert series.high is not None and (series.high.step, series.high.value) == (0, 3.0)
    report = await metrics.report(RUNS, CALLER, "a", HistoryRequest(), ALL)
    assert [each.series.name for each in report.metrics.items] == ["accuracy", "loss"]
    assert all(each.points is None for each in report.metrics.items)


async def test_any_order_of_arrival_gives_the_same_history(metrics: Metrics) -> None:
    whole = points("loss", [math.sin(step / 50) for step in range(4000)])
    shuffled = whole[:]
    random.Random(7).shuffle(shuffled)
    for begin in range(0, len(shuffled), 317):
        await write(metrics, shuffled[begin : begin + 317])
    await write(metrics, whole[1000:1500])
    found = await history(metrics, "loss")
    assert found.points is not None
    assert found.points.steps.tolist() == list(range(4000))
    assert found.points.values.tolist() == [each.value for each in whole]
    assert found.series.point_count == 4000
    assert found.series.low is not None and found.series.low.value == min(each.value for each in whole)
    assert found.series.last == (3999, whole[-1].time)


async def test_points_one_by_one_are_packed_as_they_come(metrics: Metrics, database: Database) -> None:
    for each in points("loss", range(300)):
        await write(metrics, [each])
    found = await history(metrics, "loss")
    assert found.points is not None and found.points.values.tolist() == list(range(300))
    assert found.series.packed_count > 200
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(MetricBlockRow)) == 1


async def test_several_points_on_one_step_are_told_apart_by_time(metrics: Metrics) -> None:
    batch = [Point("loss", 0, 1_700_000_000_000_000 + index, float(index)) for index in range(200)]
    await write(metrics, batch)
    await write(metrics, batch)
    found = await history(metrics, "loss")
    assert found.points is not None and found.points.values.tolist() == [float(index) for index in range(200)]
    assert found.series.last_value == 199.0


async def test_a_point_that_is_there_stays_as_it_is(metrics: Metrics) -> None:
    await write(metrics, points("loss", [1.0, 2.0]))
    await write(metrics, points("loss", [5.0, 6.0, 7.0]))
    found = await history(metrics, "loss")
    assert found.points is not None and found.points.values.tolist() == [1.0, 2.0, 7.0]
    assert found.series.high is not None and found.series.high.value == 7.0


async def test_values_that_are_no_numbers_are_kept_and_don_t_hide_the_others(metrics: Metrics) -> None:
    values = [1.0, math.nan, math.inf, -math.inf, 0.5, math.nan]
    await write(metrics, points("loss", values))
    found = await history(metrics, "loss")
    assert found.points is not None and same(found.points.values.tolist(), values)
    assert math.isnan(found.series.last_value)
    assert found.series.odd_count == 4
    assert found.series.low is not None and found.series.low.value == 0.5
    await write(metrics, points("loss", [math.nan] * 3000, first_step=6))
    found = await history(metrics, "loss")
    assert found.points is not None and len(found.points) == 3006
    assert found.series.odd_count == 3004
    assert found.series.high is not None and found.series.high.value == 1.0


async def test_a_range_of_steps_and_fewer_points_than_there_are(metrics: Metrics) -> None:
    values = [float(step % 10) for step in range(5000)]
    values[2345], values[3456] = 1e6, -1e6
    for begin in range(0, 5000, 1000):
        await write(metrics, points("loss", values[begin : begin + 1000], first_step=begin))
    found = await history(metrics, "loss", from_step=1000, to_step=1999)
    assert found.points is not None and found.points.steps.tolist() == list(range(1000, 2000))
    assert not found.is_sampled
    for max_points in (10, 12, 50, 999):
        found = await history(metrics, "loss", max_points=max_points)
        assert found.points is not None and found.is_sampled
        assert len(found.points) <= max_points
        assert (found.points.steps[0], found.points.steps[-1]) == (0, 4999)
        assert {1e6, -1e6} <= set(found.points.values)
        assert found.points.steps.tolist() == sorted(found.points.steps)
    found = await history(metrics, "loss", from_step=9000)
    assert found.points is not None and len(found.points) == 0


async def test_instances_are_kept_apart(metrics: Metrics) -> None:
    await write(metrics, points("loss", [1.0]), instance=0)
    await write(metrics, points("loss", [2.0]), instance=1)
    report = await metrics.report(RUNS, CALLER, "a", HistoryRequest(names=("loss",)), ALL)
    assert [(each.series.instance, each.series.last_value) for each in report.metrics.items] == [(0, 1.0), (1, 2.0)]
    report = await metrics.report(RUNS, CALLER, "a", HistoryRequest(instance=1), ALL)
    assert [each.series.instance for each in report.metrics.items] == [1]


async def test_what_is_too_much_is_left_out_and_said(database: Database) -> None:
    metrics = Metrics(database, Limits(series_per_run=3, points_per_series=100))
    await write(metrics, [each for name in "abcde" for each in points(name, range(10))])
    await write(metrics, points("a", range(200), first_step=10))
    report = await metrics.report(RUNS, CALLER, "a", HistoryRequest(), ALL)
    assert [each.series.name for each in report.metrics.items] == ["a", "b", "c"]
    assert report.metrics.items[0].series.point_count == 100
    assert any("3 metrics" in text for text in report.notes)
    assert any("100 points" in text for text in report.notes)


async def test_an_idempotency_key_counts_once_even_where_times_differ(metrics: Metrics) -> None:
    caller = replace(CALLER, idempotency_key=IdempotencyKey.of("key", "/path", b"body"))
    for second in (0, 1):
        await metrics.write(RUNS, caller, "a", 0, [Point("loss", 0, 1_700_000_000_000_000 + second, 1.0)])
    assert (await history(metrics, "loss")).series.point_count == 1


async def test_a_run_s_token_writes_to_its_own_run_alone(metrics: Metrics) -> None:
    own = replace(CALLER, kind=TokenKind.WORKLOAD, workload_id="a")
    await metrics.write(RUNS, own, "a", 0, points("loss", [1.0]))
    with pytest.raises(ForeignRun, match="another run"):
        await metrics.write(RUNS, own, "b", 0, points("loss", [1.0]))


async def test_unknown_runs_and_too_many_names_are_refused(metrics: Metrics) -> None:
    with pytest.raises(NotFound):
        await write(metrics, points("loss", [1.0]), run_id="nobody")
    with pytest.raises(NotFound):
        await metrics.report(RUNS, CALLER, "nobody", HistoryRequest(), ALL)
    with pytest.raises(Invalid, match="at most 50"):
        await metrics.report(RUNS, CALLER, "a", HistoryRequest(names=tuple(map(str, range(51)))), ALL)


async def test_forgetting_takes_everything_of_one_run_and_nothing_of_another(
    metrics: Metrics, database: Database
) -> None:
    for run_id in ("a", "b"):
        for name in ("loss", "accuracy"):
            for begin in range(0, 9000, 3000):
                await write(metrics, points(name, range(3000), first_step=begin), run_id=run_id)
        await metrics.settle(run_id)
        await write(metrics, wide(0), run_id=run_id)
    await metrics.forget("a")
    await metrics.forget("a")
    async with database.read() as session:
        for row, left in (
            (MetricRunRow, 1),
            (MetricArrivalRow, 1),
            (MetricSeriesRow, 2),
            (MetricFileRow, 0),
            (MetricBlockRow, 18),
        ):
            assert await session.scalar(select(func.count()).select_from(row)) == left, row.__tablename__
    assert (await history(metrics, "loss", run_id="b")).series.point_count == 9000


async def test_what_waits_is_durable_and_read_in_the_order_of_arrival(metrics: Metrics, database: Database) -> None:
    names = [f"gauge/{number}" for number in range(300)]
    for step in range(3):
        await write(metrics, [each for name in names for each in points(name, [step + 0.5], first_step=step)])
    await write(metrics, points(names[0], [9.0], first_step=1))  # sent again with another value: the first one stays
    assert await metrics.waiting_runs() == ["a"]
    assert await metrics.waiting_runs("nobody's") == []
    other = Metrics(database)  # another server, or this one after a kill
    report = await other.report(RUNS, CALLER, "a", HistoryRequest(), PageRequest(1, 300))
    assert [(each.series.name, each.series.point_count) for each in report.metrics.items] == [
        (name, 3) for name in sorted(names)
    ]
    assert (await history(metrics, names[0])).series.last_value == 2.5
    found = await history(metrics, names[0])
    assert found.points is not None and found.points.values.tolist() == [0.5, 1.5, 2.5]
    assert await metrics.waiting_runs() == []


async def test_what_waits_goes_into_its_series_in_turns_with_others(
    metrics: Metrics, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"gauge/{number}" for number in range(350)]
    for step in range(4):
        await write(metrics, [each for name in names for each in points(name, [step + 0.5] * 3, first_step=step * 3)])
    add_points, sizes = store.add_points, list[int]()

    async def add(session: AsyncSession, run: Any, wanted: Mapping[Any, Any], limits: Any) -> None:
        sizes.append(len(wanted))
        if len(sizes) == 3:
            raise InterruptedError  # the server is killed there
        await add_points(session, run, wanted, limits)

    monkeypatch.setattr(store, "add_points", add)
    with pytest.raises(InterruptedError):
        await metrics.settle("a")
    assert await metrics.waiting_runs() == ["a"]
    # Two servers at once, one of which finds all of it done, while a write comes in the place of what was there.
    await asyncio.gather(metrics.settle("a"), Metrics(database).settle("a"))
    await write(metrics, wide(0))
    assert await metrics.waiting_runs() == ["a"]
    assert max(sizes) == 50
    report = await metrics.report(RUNS, CALLER, "a", HistoryRequest(), PageRequest(1, 500))
    assert {each.series.name: each.series.point_count for each in report.metrics.items} == dict.fromkeys(names, 12)
    found = await history(metrics, names[349])
    assert found.points is not None and found.points.values.tolist() == [0.5] * 3 + [1.5] * 3 + [2.5] * 3 + [3.5] * 3


async def test_a_write_in_the_place_of_one_that_was_settled_stays(metrics: Metrics, database: Database) -> None:
    await write(metrics, wide(0))
    async with database.read() as session:
        known = await arrivals.waiting(session, "a")
    await metrics.settle("a")
    await write(metrics, wide(1))  # as large, so that it has the place of the first one
    async with database.write() as session:
        await arrivals.drop_known(session, "a", known)
    assert (await history(metrics, "gauge/3")).series.point_count == 2


async def test_what_waits_is_bounded(metrics: Metrics, database: Database) -> None:
    for number in range(30):
        await write(metrics, wide(number, 30))
        async with database.read() as session:
            assert (await session.scalar(select(func.max(MetricArrivalRow.waiting))) or 0) <= 20_000
    assert (await history(metrics, "gauge/7")).series.point_count == 900


async def test_a_small_write_is_in_its_series_at_once(metrics: Metrics) -> None:
    await write(metrics, points("loss", [1.0]))
    assert await metrics.waiting_runs() == []
    await write(metrics, [*wide(0), *points("loss", [2.0], first_step=1)])
    await write(
        metrics, points("loss", [9.0, 3.0], first_step=1)
    )  # behind what waits, so that the first value of a spot stays
    assert await metrics.waiting_runs() == ["a"]
    found = await history(metrics, "loss")
    assert found.points is not None and found.points.values.tolist() == [1.0, 2.0, 3.0]


async def test_points_of_an_instance_that_is_not_there_are_refused(metrics: Metrics) -> None:
    class OfTwo(KnownRuns):
        async def hold_run(self, session: AsyncSession, caller: Caller, run_id: str) -> Owner:
            return replace(await super().hold_run(session, caller, run_id), instance_count=2)

    runs = OfTwo([run("a")])
    await metrics.write(runs, CALLER, "a", 1, points("loss", [1.0]))
    with pytest.raises(Invalid) as refused:
        await metrics.write(runs, CALLER, "a", 2, points("loss", [1.0]))
    assert [fault.field for fault in refused.value.faults] == ["instance"]
