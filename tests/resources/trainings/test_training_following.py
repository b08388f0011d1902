"""What is new of a workload is shown by its training at once; what takes more than that is left to the training's own reconciler."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import select

from modelyard.compute.port import Capacity, Cause
from modelyard.control.events import events_of
from modelyard.control.tables import WorkItemRow
from modelyard.control.transitions import move
from modelyard.control.work import forget
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.resources.trainings.following import follow
from modelyard.resources.trainings.lifecycle import LIFECYCLE, TrainingState
from modelyard.resources.trainings.repository import locked
from modelyard.resources.trainings.service import KIND
from modelyard.resources.trainings.table import TrainingRow
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.compute import FakeCompute, Script
from modelyard.testing.workloads import WorkloadLoop

ID = "t1"
GIB = 2**30


@pytest.fixture
async def loop(database_url: str) -> AsyncIterator[WorkloadLoop]:
    database, clock = Database(database_url), ShiftedClock()
    compute = FakeCompute(Capacity(cpus=2.0, memory_bytes=GIB), clock)
    made = WorkloadLoop(database, compute, clock, followers={KIND: follow})
    await add(made, ID)
    yield made
    await database.close()


async def add(loop: WorkloadLoop, key: str) -> None:
    """A training that has just asked for its workload."""
    now = utc_now()
    names = {"id": key, "project_id": "p", "name": key, "image_id": "i", "flavor_id": "f"}
    async with loop.database.write() as session:
        row = TrainingRow(**names, desired="run", state=LIFECYCLE.initial.value, spec={}, status={}, tags=[])
        row.created_at = row.updated_at = now
        session.add(row)
        move(session, LIFECYCLE, row, TrainingState.CREATE_IN_PROGRESS, reason="STARTING")
    loop.compute.scripts[f"{key}.0.0"] = Script(is_slow=True)
    await loop.add(key, owner_kind=KIND, owner_id=key)


async def shown(loop: WorkloadLoop, key: str = ID) -> tuple[str, str | None]:
    async with loop.database.read() as session:
        row = (await session.scalars(select(TrainingRow).where(TrainingRow.id == key))).one()
        return row.state, row.reason


async def is_asked(loop: WorkloadLoop) -> bool:
    """Whether the training's own reconciler is to look; that is forgotten with the answer."""
    async with loop.database.write() as session:
        found = await session.get(WorkItemRow, (KIND, ID)) is not None
        await forget(session, KIND, ID)
    return found


async def test_steps_and_a_good_end_cost_no_turn_of_the_trainings_own(loop: WorkloadLoop) -> None:
    await loop.drain()
    loop.compute.run(f"{ID}.0.0")
    await loop.drain()
    loop.compute.report(f"{ID}.0.0", {"step": "fetching", "message": "1 of 2 files"})
    await loop.drain()
    assert await shown(loop) == ("CREATE_IN_PROGRESS", "FETCHING")
    steps = [{"step": "fetching"}, {"step": "installing", "detail": "lightgbm"}, {"step": "running"}]
    loop.compute.report(f"{ID}.0.0", {"step": "running", "steps": steps})
    await loop.drain()
    assert await shown(loop) == ("RUNNING", None)
    loop.compute.finish(f"{ID}.0.0")
    await loop.drain()
    assert await shown(loop) == ("COMPLETE", None)
    assert not await is_asked(loop)
    async with loop.database.read() as session:
        history = [(event.new_state, event.reason) for event in await events_of(session, KIND, ID)]
    assert history == [
        ("CREATE_IN_PROGRESS", "STARTING"),
        ("CREATE_IN_PROGRESS", "FETCHING"),
        ("CREATE_IN_PROGRESS", "INSTALLING"),
        ("RUNNING", None),
        ("COMPLETE", None),
    ]


async def test_who_waits_for_room_says_so_and_says_when_another_has_made_it_begin(loop: WorkloadLoop) -> None:
    await loop.drain()
    await add(loop, "t2")
    await add(loop, "t3")
    await loop.drain()
    assert [await shown(loop, key) for key in ("t2", "t3")] == [("CREATE_IN_PROGRESS", "WAITING_FOR_ROOM")] * 2
    loop.compute.run(f"{ID}.0.0")
    loop.compute.finish(f"{ID}.0.0")
    await loop.drain()
    assert await shown(loop) == ("COMPLETE", None)
    assert await shown(loop, "t2") == ("CREATE_IN_PROGRESS", "STARTING")


async def test_a_failure_waits_for_its_last_lines(loop: WorkloadLoop) -> None:
    await loop.drain()
    loop.compute.run(f"{ID}.0.0")
    loop.compute.kill(f"{ID}.0.0", Cause.OUT_OF_MEMORY)
    await loop.drain()
    assert (await loop.get(ID)).state is WorkloadState.FAILED
    assert await shown(loop) == ("CREATE_IN_PROGRESS", "STARTING")
    assert await is_asked(loop)


async def test_one_that_is_to_stop_is_left_to_its_reconciler(loop: WorkloadLoop) -> None:
    await loop.drain()
    async with loop.database.write() as session:
        row = await locked(session, ID)
        assert row is not None
        row.desired = "stop"
    assert not await is_asked(loop)
    loop.compute.run(f"{ID}.0.0")
    await loop.drain()
    assert await shown(loop) == ("CREATE_IN_PROGRESS", "STARTING")
    assert await is_asked(loop)


async def test_a_move_that_is_not_allowed_keeps_no_workload_from_its_end(loop: WorkloadLoop) -> None:
    await loop.drain()
    async with loop.database.write() as session:
        row = await locked(session, ID)
        assert row is not None
        move(session, LIFECYCLE, row, TrainingState.STOP_IN_PROGRESS)
    loop.compute.run(f"{ID}.0.0")
    loop.compute.report(f"{ID}.0.0", {"step": "running"})  # which nothing follows that is stopping
    await loop.drain()
    assert (await loop.get(ID)).state is WorkloadState.RUNNING
    assert (await shown(loop))[0] == "STOP_IN_PROGRESS"
    assert await is_asked(loop)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
async def test_a_training_that_somebody_else_writes_is_not_waited_for(loop: WorkloadLoop) -> None:
    await loop.drain()
    loop.compute.run(f"{ID}.0.0")
    other = Database(loop.database.url.render_as_string(hide_password=False).replace("+asyncpg", ""))
    async with other.engine.connect() as connection:
        await connection.execute(select(TrainingRow.id).where(TrainingRow.id == ID).with_for_update())
        await loop.drain()
        assert (await loop.get(ID)).state is WorkloadState.RUNNING
    await other.close()
    assert await is_asked(loop)
