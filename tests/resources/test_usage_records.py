"""What instances use, recorded and told: one sample in every resolution, the right one asked for, old ones dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from modelyard.compute.port import Use
from modelyard.db.engine import Database
from modelyard.resources.usage.model import Retention, Sample
from modelyard.resources.usage.recorder import Recorder
from modelyard.resources.usage.service import Usage, UsageRequest
from modelyard.resources.usage.table import UsageRow
from modelyard.resources.workloads.service import Workloads
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.compute import FakeCompute
from modelyard.testing.workloads import WorkloadLoop, make_tables

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = 3600


class Moments:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class MeasuringCompute(FakeCompute):
    """A backend whose instances use what the test says."""

    def __init__(self, clock: ShiftedClock) -> None:
        super().__init__(clock=clock)
        self.cpu_seconds = 0.0

    async def measure(self, ids: Sequence[str]) -> Sequence[Use]:
        return [Use(each, self.cpu_seconds, 100, 1000, 50.0, 7) for each in ids]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await make_tables(database)
    async with database.engine.begin() as connection:
        await connection.run_sync(UsageRow.metadata.create_all, tables=[UsageRow.__table__])
    yield database
    await database.close()


@pytest.fixture
def moments() -> Moments:
    return Moments()


@pytest.fixture
def usage(database: Database, moments: Moments) -> Usage:
    return Usage(database, Workloads(database, FakeCompute()), Retention.of_days(90), clock=moments)


async def record(usage: Usage, moments: Moments, seconds: int, owner_id: str = "a", every: int = 10) -> None:
    """Samples over so many seconds; the n-th uses n cores' hundredths and n bytes."""
    for index in range(seconds // every):
        moments.now += timedelta(seconds=every)
        await usage.record([Sample(owner_id, 0, index / 100, index, 5), Sample(owner_id, 1, 1.0, 10, 5, 40.0, 9)])


async def count(database: Database, **where: int | str) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(UsageRow).filter_by(**where)) or 0


async def test_short_runs_are_told_by_ten_seconds_and_long_ones_by_minutes(usage: Usage, moments: Moments) -> None:
    await record(usage, moments, 1200)
    found = await usage.report("a", UsageRequest(instance=0))
    assert found.resolution == 10
    assert [each.memory_bytes for each in found.stretches] == list(range(120))
    found = await usage.report("a", UsageRequest(max_points=60))
    assert found.resolution == 60
    first = next(each for each in found.stretches if each.instance == 0 and each.memory_bytes_max > 5)
    assert (first.memory_bytes, first.memory_bytes_max, first.disk_bytes) == (7.5, 10, 5)
    assert first.cpu_cores == pytest.approx(0.075) and first.cpu_cores_max == pytest.approx(0.10)
    assert first.gpu_percent is None
    other = next(each for each in found.stretches if each.instance == 1)
    assert (other.gpu_percent, other.gpu_memory_bytes) == (40.0, 9)
    begin = int(START.timestamp()) + 600
    found = await usage.report("a", UsageRequest(begin=begin, end=begin + 60, resolution=10, instance=0))
    assert [each.at for each in found.stretches] == list(range(begin, begin + 61, 10))
    assert (await usage.report("nobody", UsageRequest())).stretches == []


async def test_rows_stay_bounded_while_an_instance_lives_and_go_when_they_are_old(
    usage: Usage, moments: Moments, database: Database
) -> None:
    await record(usage, moments, 8 * HOUR, every=60)
    await usage.trim(["a"])
    assert await count(database, resolution=10, instance=0) == 361
    assert await count(database, resolution=60, instance=0) == 480
    assert await count(database, resolution=3600, instance=0) == 9
    found = await usage.report("a", UsageRequest(instance=0))
    assert found.resolution == 60  # the ten-second rows no longer reach back to the beginning
    moments.now += timedelta(days=8)
    await usage.trim([])
    assert (await count(database, resolution=10), await count(database, resolution=60)) == (0, 960)
    moments.now += timedelta(days=90)
    await usage.trim([])
    assert await count(database) == 0


async def test_forgetting_takes_one_owner_s_rows(usage: Usage, moments: Moments, database: Database) -> None:
    await record(usage, moments, 100)
    await record(usage, moments, 100, owner_id="b")
    await usage.forget("a")
    assert await count(database, owner_id="a") == 0
    assert await count(database, owner_id="b", resolution=10) == 20


async def test_the_recorder_tells_cores_from_the_growth_of_processor_time(database: Database) -> None:
    clock = ShiftedClock()
    compute = MeasuringCompute(clock)
    loop = WorkloadLoop(database, compute, clock)
    workload_id = await loop.add()
    await loop.drain()
    await loop.observer.look(await loop.workloads.live())
    await loop.drain()
    usage = Usage(database, loop.workloads, clock=clock)
    now = [1000.0]
    recorder = Recorder(usage, Workloads(database, compute), clock=lambda: now[0])
    for cpu_seconds in (5.0, 25.0, 20.0):
        compute.cpu_seconds = cpu_seconds
        assert await recorder.record() == [workload_id]
        now[0] += 10.0
        clock.advance(10.0)
    found = await usage.report(workload_id, UsageRequest(resolution=10))
    assert [each.cpu_cores for each in found.stretches] == [0.5, 2.0, 0.0]
    assert found.stretches[0].memory_bytes == 100 and found.stretches[0].gpu_percent == 50.0
    assert found.limits is not None and found.limits.memory_bytes == 2**30
