"""From event files to the store by the real reading process: everything once, whoever is killed when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from event_writer import event, record, scalars
from metric_places import CALLER, EXPERIMENT, KnownRuns, make_metric_tables, run
from sqlalchemy import select

from modelyard.db.engine import Database
from modelyard.kit.paging import PageRequest
from modelyard.resources.metrics.collector import Collector
from modelyard.resources.metrics.model import Owner
from modelyard.resources.metrics.service import HistoryRequest, Metrics
from modelyard.resources.metrics.table import MetricRunRow
from modelyard.resources.workloads.service import Workloads
from modelyard.resources.workloads.table import WorkloadRow
from modelyard.testing.compute import FakeCompute

RUNS = KnownRuns([run("a")])
NAME = "events.out.tfevents.1"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await make_metric_tables(database, WorkloadRow)
    yield database
    await database.close()


@pytest.fixture
async def collector(database: Database) -> AsyncIterator[Collector]:
    collector = make_collector(database)
    yield collector
    await collector.close()


def make_collector(database: Database) -> Collector:
    return Collector(database, Metrics(database), Workloads(database, FakeCompute()))


async def open_source(database: Database, directory: Path, instance_count: int = 1) -> Metrics:
    metrics = Metrics(database)
    async with database.write() as session:
        owner = Owner("training", "a", CALLER.project.id, EXPERIMENT)
        await metrics.open_source(session, owner, str(directory), instance_count)
    return metrics


async def collect_all(collector: Collector) -> None:
    for _ in range(1000):
        if not await collector.collect():
            return
    raise AssertionError("it never ends")


async def steps_of(metrics: Metrics, name: str, instance: int | None = None) -> list[int]:
    request = HistoryRequest(names=(name,), max_points=5000, instance=instance)
    found = await metrics.report(RUNS, CALLER, "a", request, PageRequest())
    points = [each.points for each in found.metrics.items]
    return [step for each in points if each is not None for step in each.steps]


async def notes_of(metrics: Metrics) -> str:
    return " ".join((await metrics.report(RUNS, CALLER, "a", HistoryRequest(), PageRequest())).notes)


async def reopen(database: Database) -> None:
    """The collector closes what has no workload; these tests go on."""
    async with database.write() as session:
        row = await session.get(MetricRunRow, "a")
        assert row is not None
        row.is_open = True


async def is_open(database: Database) -> bool:
    async with database.read() as session:
        return bool(await session.scalar(select(MetricRunRow.is_open)))


async def test_a_run_s_files_are_read_to_their_end_and_then_closed(
    database: Database, collector: Collector, tmp_path: Path
) -> None:
    metrics = await open_source(database, tmp_path)
    for directory in ("train", "validation"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / NAME).write_bytes(b"".join(scalars(step, {"loss": 1.0}) for step in range(4000)))
    (tmp_path / NAME).write_bytes(scalars(0, {"lr": 0.1}) + scalars(1, {"lr": 0.2})[:-3])
    await collect_all(collector)
    assert await steps_of(metrics, "train/loss") == list(range(4000))
    assert await steps_of(metrics, "validation/loss") == list(range(4000))
    assert await steps_of(metrics, "lr") == [0]
    assert "ends in the middle" in await notes_of(metrics)
    assert not await is_open(database)


async def test_several_collectors_at_odds_lose_and_double_nothing(database: Database, tmp_path: Path) -> None:
    metrics = await open_source(database, tmp_path)
    collectors = [make_collector(database) for _ in range(2)]
    generator = random.Random(3)
    written = 0
    try:
        with (tmp_path / NAME).open("ab") as file:
            while written < 3000:
                count = generator.randrange(1, 400)
                content = b"".join(scalars(step, {"loss": float(step)}) for step in range(written, written + count))
                cut = generator.randrange(len(content))
                file.write(content[:cut])
                file.flush()
                await asyncio.gather(*(each.collect() for each in collectors))
                file.write(content[cut:])
                file.flush()
                written += count
                await reopen(database)
        for each in collectors:
            await collect_all(each)
    finally:
        for each in collectors:
            await each.close()
    assert await steps_of(metrics, "loss") == list(range(written))


async def test_a_piece_that_another_has_taken_meanwhile_is_refused(
    database: Database, collector: Collector, tmp_path: Path
) -> None:
    from modelyard.eventfiles.reading import read_new

    metrics = await open_source(database, tmp_path)
    (tmp_path / NAME).write_bytes(scalars(0, {"loss": 1.0}))
    (source,) = await metrics.open_sources()
    (piece,) = read_new(str(tmp_path), source.places, 1 << 20, 100).pieces
    assert await metrics.take_piece(source, piece)
    assert not await metrics.take_piece(source, piece)
    assert await steps_of(metrics, "loss") == [0]
    await metrics.forget("a")
    assert not await metrics.take_piece(source, piece)


async def test_damage_is_told_and_a_restarted_log_voids_what_it_said(
    database: Database, collector: Collector, tmp_path: Path
) -> None:
    metrics = await open_source(database, tmp_path)
    broken = bytearray(scalars(2999, {"loss": 1.0}))
    broken[20] ^= 1
    (tmp_path / NAME).write_bytes(b"".join(scalars(step, {"loss": 2.0}) for step in range(2500)) + broken)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / NAME).write_bytes(b"".join(scalars(step, {"loss": 2.0}) for step in range(50)))
    (tmp_path / f"{NAME}.later").write_bytes(
        record(event(1500, 1.7e9, restart=True)) + b"".join(scalars(step, {"loss": 5.0}) for step in range(1500, 1600))
    )
    await collector.collect()
    (tmp_path / f"{NAME}.later.2").write_bytes(
        record(event(1000, 1.7e9, restart=True)) + scalars(1000, {"loss": -1.0}, time=1.8e9)
    )
    await reopen(database)
    await collect_all(collector)
    steps = await steps_of(metrics, "loss")
    assert steps[:1001] == list(range(1001))
    assert await steps_of(metrics, "other/loss") == list(range(50))
    found = await metrics.report(RUNS, CALLER, "a", HistoryRequest(names=("loss",)), PageRequest())
    (series,) = [each.series for each in found.metrics.items]
    assert series.point_count == len(steps)
    assert series.low is not None and series.low.value == -1.0
    assert "is damaged" in await notes_of(metrics)


async def test_each_instance_has_its_own_metrics(database: Database, collector: Collector, tmp_path: Path) -> None:
    metrics = await open_source(database, tmp_path, instance_count=2)
    for index in range(3):
        (tmp_path / f"instance-{index}").mkdir()
        (tmp_path / f"instance-{index}" / NAME).write_bytes(scalars(index, {"loss": 1.0}))
    await collect_all(collector)
    assert await steps_of(metrics, "loss", 0) == [0]
    assert await steps_of(metrics, "loss", 1) == [1]
    assert await steps_of(metrics, "instance-2/loss") == [2]  # a name that the script has chosen itself
