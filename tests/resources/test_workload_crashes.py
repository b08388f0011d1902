"""The server dies, or something fails, at every single step of a workload's life; the next server ends up at the same place.

Each way out of the process (every database session, every commit, every verb of the backend, before and after it took effect) is a step.
The whole life of a workload is run again and again, and each time broken off at another step.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.compute.port import Capacity, Phase
from modelyard.db.engine import Database, sqlite_url
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Desired
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.compute import FakeCompute, Script
from modelyard.testing.workloads import WorkloadLoop, make_tables


class Fuse:
    """Blows at the n-th step."""

    def __init__(self, step: int, error: type[BaseException]) -> None:
        self.left = step
        self.has_blown = False
        self._error = error

    async def burn(self, *_about: str) -> None:
        self.left -= 1
        if self.left == 0:
            self.has_blown = True
            raise self._error("the fuse has blown")


class FusedDatabase(Database):
    """Each session is three steps: before it opens, before it commits, and after the commit."""

    def __init__(self, url: str, fuse: Fuse) -> None:
        super().__init__(url)
        self._fuse = fuse

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncSession]:
        await self._fuse.burn()
        async with super().read() as session:
            yield session
        await self._fuse.burn()

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncSession]:
        await self._fuse.burn()
        async with super().write() as session:
            yield session
            await self._fuse.burn()
        await self._fuse.burn()


class Life:
    """One workload, and servers that come one after the other."""

    def __init__(self, url: str, fuse: Fuse) -> None:
        self.url = url
        self.fuse = fuse
        self.clock = ShiftedClock()
        self.compute = FakeCompute(Capacity(4.0, 8 * 2**30), self.clock)
        self.compute.before = fuse.burn
        self.compute.after = fuse.burn
        self.calm = WorkloadLoop(Database(url), self.compute, self.clock, owner="client")
        self.server_count = 0
        self._open: list[Database] = []

    async def settle(self) -> None:
        """Let servers work until nothing is due; a server that dies is followed by another."""
        while True:
            self.server_count += 1
            database = FusedDatabase(self.url, self.fuse)
            self._open.append(database)
            server = WorkloadLoop(database, self.compute, self.clock, owner=f"server-{self.server_count}")
            try:
                await server.drain()
                self.clock.advance(31)  # back-off and abandoned leases are over
                await server.drain()
                self.clock.advance(31)
                await server.drain()
            except (asyncio.CancelledError, ConnectionError):
                self.clock.advance(31)
                continue
            return

    async def close(self) -> None:
        for database in (*self._open, self.calm.database):
            await database.close()


async def run_to_end(life: Life) -> None:
    key = await life.calm.add(instances=2)
    ids = [f"{key}.0.0", f"{key}.1.0"]
    life.compute.scripts[ids[0]] = Script(is_slow=True)
    await life.settle()
    life.compute.run(ids[0])
    await life.settle()
    assert (await life.calm.get(key)).state is WorkloadState.RUNNING
    for each in ids:
        life.compute.finish(each)
    await life.settle()
    assert (await life.calm.get(key)).state is WorkloadState.SUCCEEDED
    await life.calm.ask(key, Desired.DELETE)
    await life.settle()
    assert await life.calm.find(key) is None
    assert life.compute.starts == dict.fromkeys(ids, 1)
    assert [life.compute.seen(each).phase for each in ids] == [Phase.ABSENT] * 2


async def lost_then_stopped(life: Life) -> None:
    key = await life.calm.add()
    await life.settle()
    life.compute.lose(f"{key}.0.0")
    await life.settle()
    assert (await life.calm.get(key)).state is WorkloadState.RUNNING
    assert life.compute.starts == {f"{key}.0.0": 1, f"{key}.0.1": 1}
    await life.calm.ask(key, Desired.STOP)
    await life.settle()
    assert (await life.calm.get(key)).state is WorkloadState.STOPPED
    assert life.compute.alive_ids == []
    assert life.compute.seen(f"{key}.0.0").phase is Phase.ABSENT  # nothing of the first attempt is left behind


async def kept_up(life: Life) -> None:
    key = await life.calm.add(restart="always", instances=2)
    await life.settle()
    life.compute.finish(f"{key}.1.0", 1)
    await life.settle()
    running = await life.calm.get(key)
    assert running.state is WorkloadState.RUNNING
    assert life.compute.starts == {f"{key}.0.0": 1, f"{key}.1.0": 1, f"{key}.1.1": 1}
    await life.calm.ask(key, Desired.DELETE)
    await life.settle()
    assert await life.calm.find(key) is None
    assert life.compute.alive_ids == []


STRIDE = 14  # 1 tries every step, in ten minutes
LIVES: list[Callable[[Life], Awaitable[None]]] = [run_to_end, lost_then_stopped, kept_up]


@pytest.mark.slow
@pytest.mark.parametrize("error", [asyncio.CancelledError, ConnectionError], ids=["killed", "fails"])
@pytest.mark.parametrize("life_of", LIVES, ids=["run_to_end", "lost_then_stopped", "kept_up"])
async def test_broken_off_at_every_step(
    tmp_path: Path, life_of: Callable[[Life], Awaitable[None]], error: type[BaseException]
) -> None:
    empty = await _prepared(tmp_path)
    first_step = 1 + LIVES.index(life_of)  # the lives begin alike: together they cover their beginning closely
    if error is ConnectionError:
        first_step += STRIDE // 2  # the two errors share the steps
    step = first_step
    for step in range(first_step, 1000, STRIDE):
        url = sqlite_url(Path(shutil.copy(empty, tmp_path / f"{step}.db")))
        fuse = Fuse(step, error)
        life = Life(url, fuse)
        try:
            await life_of(life)
        except AssertionError as fault:
            raise AssertionError(f"broken off at step {step}: {fault}") from fault
        finally:
            await life.close()
        if not fuse.has_blown:
            break  # it came to its end before that step: all were tried
    assert step > 60


@pytest.mark.slow
@pytest.mark.parametrize("error", [asyncio.CancelledError, ConnectionError], ids=["killed", "fails"])
async def test_broken_off_at_some_steps_on_postgresql(pg_url: str, error: type[BaseException]) -> None:
    await _prepare(pg_url)
    for step in range(1, 120, 13):
        life = Life(pg_url, Fuse(step, error))
        try:
            await run_to_end(life)
        finally:
            await life.close()


async def test_broken_off_in_the_first_steps(tmp_path: Path) -> None:
    """The quick part of the above."""
    empty = await _prepared(tmp_path)
    for step in range(4, 36, 4):
        url = sqlite_url(Path(shutil.copy(empty, tmp_path / f"{step}.db")))
        life = Life(url, Fuse(step, asyncio.CancelledError))
        await run_to_end(life)
        assert life.fuse.has_blown
        await life.close()


async def _prepared(directory: Path) -> Path:
    await _prepare(sqlite_url(directory / "empty.db"))
    return directory / "empty.db"


async def _prepare(url: str) -> None:
    database = Database(url)
    await make_tables(database)
    await database.close()
