"""Workloads through queue, reconciler and observer on a backend that misbehaves, step by step and without waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from modelyard.compute.port import Capacity, Cause, Exit, Phase
from modelyard.control.events import events_of
from modelyard.control.tables import EventRow, WorkItemRow
from modelyard.db.engine import Database, sqlite_url
from modelyard.kit.errors import RetryLater
from modelyard.resources.workloads import probe
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Desired, LimitsSpec, LogSpec
from modelyard.resources.workloads.observer import WorkloadObserver
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.compute import FakeCompute, Script
from modelyard.testing.workloads import OWNER_KIND, WorkloadLoop, make_tables


@pytest.fixture
async def loop(tmp_path: Path) -> AsyncIterator[WorkloadLoop]:
    database = Database(sqlite_url(tmp_path / "test.db"))
    await make_tables(database)
    clock = ShiftedClock()
    yield WorkloadLoop(database, FakeCompute(Capacity(4.0, 8 * 2**30), clock), clock)
    await database.close()


async def owner_is_woken(loop: WorkloadLoop) -> bool:
    async with loop.database.write() as session:
        rows = (await session.scalars(select(WorkItemRow).where(WorkItemRow.kind == OWNER_KIND))).all()
        for row in rows:
            await session.delete(row)
    return bool(rows)


async def test_start_run_succeed(loop: WorkloadLoop) -> None:
    key = await loop.add(instances=2)
    ids = [f"{key}.0.0", f"{key}.1.0"]
    for each in ids:
        loop.compute.scripts[each] = Script(is_slow=True)
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.STARTING
    assert await owner_is_woken(loop)
    for each in ids:
        loop.compute.run(each)
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.RUNNING
    loop.compute.finish(ids[0])
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.RUNNING
    loop.compute.finish(ids[1])
    await loop.drain()
    done = await loop.get(key)
    assert done.state is WorkloadState.SUCCEEDED
    assert done.ended_at is not None
    assert await owner_is_woken(loop)
    assert loop.compute.starts == {ids[0]: 1, ids[1]: 1}
    async with loop.database.read() as session:
        states = [event.new_state for event in await events_of(session, "workload", key)]
    assert states == ["PENDING", "STARTING", "RUNNING", "SUCCEEDED"]
    assert await loop.drain() == 0  # nothing is left to do


@pytest.mark.parametrize(
    "how",
    [
        Exit(Cause.EXITED, "Ended with exit code 3.", code=3),
        Exit(Cause.OUT_OF_MEMORY, "Killed: it used more memory than its 1 GiB.", signal=9),
        Exit(Cause.TIME_LIMIT, "Stopped at its time limit.", signal=15),
        Exit(Cause.SIGNAL, "Killed by signal 11 (SIGSEGV).", signal=11),
        Exit(Cause.LAUNCH_FAILED, "No such program."),
    ],
    ids=lambda how: how.cause.value,
)
async def test_each_way_to_fail_is_told(loop: WorkloadLoop, how: Exit) -> None:
    key = await loop.add()
    loop.compute.scripts[f"{key}.0.0"] = Script(exit_at_once=how)
    await loop.drain()
    failed = await loop.get(key)
    assert (failed.state, failed.reason, failed.message) == (WorkloadState.FAILED, how.cause.value, how.message)
    assert loop.compute.starts.total() == 1


async def test_the_process_has_the_last_word_on_why(loop: WorkloadLoop) -> None:
    key = await loop.add()
    await loop.drain()
    loop.compute.report(f"{key}.0.0", {"step": "failed", "message": "train.csv has no column 'petal'"})
    loop.compute.finish(f"{key}.0.0", 2)
    await loop.drain()
    assert (await loop.get(key)).message == "train.csv has no column 'petal'"


async def test_a_refused_launch_fails_and_ends_the_others(loop: WorkloadLoop) -> None:
    key = await loop.add(instances=2)
    loop.compute.scripts[f"{key}.1.0"] = Script(refusal="There is no such environment.")
    await loop.drain()
    failed = await loop.get(key)
    assert (failed.state, failed.reason) == (WorkloadState.FAILED, "LAUNCH_FAILED")
    assert failed.message == "Instance 1: There is no such environment."
    assert loop.compute.alive_ids == []


async def test_one_that_fails_ends_all_and_is_the_one_that_is_blamed(loop: WorkloadLoop) -> None:
    """The others end because we stop them: that must not look like a shutdown of the platform, which starts all anew."""
    key = await loop.add(instances=3)
    await loop.drain()
    loop.compute.kill(f"{key}.2.0", Cause.OUT_OF_MEMORY, "Killed: it used too much memory.")
    await loop.drain()
    failed = await loop.get(key)
    assert (failed.state, failed.reason) == (WorkloadState.FAILED, "OUT_OF_MEMORY")
    assert failed.message == "Instance 2: Killed: it used too much memory."
    assert loop.compute.starts.total() == 3


@pytest.mark.parametrize("failures", [["after"], ["before"], ["after", "after"], ["before", "after", "before"]])
async def test_a_launch_that_fails_half_way_is_adopted(loop: WorkloadLoop, failures: list[str]) -> None:
    key = await loop.add(instances=2)
    loop.compute.scripts[f"{key}.1.0"] = Script(launch_failures=deque(failures))
    await loop.drain()
    for _ in failures:
        loop.clock.advance(120)
        await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.RUNNING
    assert loop.compute.starts == {f"{key}.0.0": 1, f"{key}.1.0": 1}


async def test_hints_do_not_defeat_the_back_off(loop: WorkloadLoop) -> None:
    """The observer sees a difference at every look while a step fails; the step must not be tried at every look."""
    key = await loop.add(instances=2)
    loop.compute.scripts[f"{key}.1.0"] = Script(launch_failures=deque(["before"] * 50))
    await loop.drain()
    loop.clock.advance(3600)
    await loop.drain()
    loop.clock.advance(3600)
    await loop.drain()
    tries = loop.compute.calls.count(("launch", f"{key}.1.0"))
    for _ in range(10):
        assert await loop.drain() == 0
    assert loop.compute.calls.count(("launch", f"{key}.1.0")) == tries
    await loop.ask(key, Desired.STOP)  # but a person is heard at once
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.STOPPED


async def test_lost_with_the_machine_it_is_started_again_and_then_given_up(loop: WorkloadLoop) -> None:
    key = await loop.add(lost_restarts=2)
    for attempt in range(3):
        await loop.drain()
        assert (await loop.get(key)).state is WorkloadState.RUNNING
        loop.compute.lose(f"{key}.0.{attempt}")
    await loop.drain()
    failed = await loop.get(key)
    assert (failed.state, failed.reason) == (WorkloadState.FAILED, "LOST")
    assert loop.compute.starts == {f"{key}.0.{attempt}": 1 for attempt in range(3)}


async def test_a_backend_that_forgets_everything(loop: WorkloadLoop) -> None:
    run, serve = await loop.add(), await loop.add(restart="always")
    await loop.drain()
    loop.compute.lose_everything()
    await loop.drain()
    assert sorted(loop.compute.alive_ids) == sorted([f"{run}.0.1", f"{serve}.0.1"])
    assert {(await loop.get(key)).state for key in (run, serve)} == {WorkloadState.RUNNING}


async def test_shutting_the_platform_down_is_never_held_against_it(loop: WorkloadLoop) -> None:
    key = await loop.add(lost_restarts=1)
    for attempt in range(5):
        await loop.drain()
        await loop.compute.stop(f"{key}.0.{attempt}")  # as `modelyard down` does
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.RUNNING
    assert loop.compute.alive_ids == [f"{key}.0.5"]


async def test_former_attempts_are_removed(loop: WorkloadLoop) -> None:
    key = await loop.add()
    await loop.drain()
    loop.compute.lose(f"{key}.0.0")
    await loop.drain()
    assert loop.compute.seen(f"{key}.0.0").phase is Phase.ABSENT
    assert (await loop.get(key)).status.retired == ()


async def test_output_of_former_attempts_has_time_to_be_shipped(loop: WorkloadLoop) -> None:
    key = await loop.add(log=LogSpec(category="training"))
    await loop.drain()
    loop.compute.lose(f"{key}.0.0")
    await loop.drain()
    assert loop.compute.seen(f"{key}.0.0").phase is Phase.EXITED
    loop.clock.advance(31)
    await loop.drain()
    assert loop.compute.seen(f"{key}.0.0").phase is Phase.ABSENT


async def test_a_server_that_crashes_is_started_again_with_patience(loop: WorkloadLoop) -> None:
    key = await loop.add(restart="always")
    await loop.drain()
    loop.compute.kill(f"{key}.0.0", Cause.SIGNAL, "Killed by signal 11.")
    await loop.drain()
    assert loop.compute.alive_ids == [f"{key}.0.1"]  # at once the first time
    loop.compute.kill(f"{key}.0.1", Cause.SIGNAL, "Killed by signal 11.")
    await loop.drain()
    waiting = await loop.get(key)
    assert loop.compute.alive_ids == []
    assert waiting.state is WorkloadState.STARTING
    assert waiting.message == "0 of 1 instances are ready. Instance 0 is started again: Killed by signal 11."
    loop.clock.advance(1.1)
    await loop.drain()
    assert loop.compute.alive_ids == [f"{key}.0.2"]
    loop.compute.kill(f"{key}.0.2", Cause.SIGNAL)
    await loop.drain()
    loop.clock.advance(1.1)
    await loop.drain()
    assert loop.compute.alive_ids == []  # longer each time
    loop.clock.advance(1.1)
    await loop.drain()
    assert loop.compute.alive_ids == [f"{key}.0.3"]
    loop.clock.advance(3600)
    loop.compute.kill(f"{key}.0.3", Cause.SIGNAL)
    await loop.drain()
    assert loop.compute.alive_ids == [f"{key}.0.4"]  # after a long good run the count begins anew


async def test_a_server_that_never_worked_fails_and_tells_why(loop: WorkloadLoop) -> None:
    key = await loop.add(restart="always", instances=2, socket="http", ready_path="/ready")
    await loop.drain()
    loop.compute.finish(f"{key}.1.0", 1)
    await loop.drain()
    failed = await loop.get(key)
    assert (failed.state, failed.reason) == (WorkloadState.FAILED, "EXITED")
    assert failed.message == "Instance 1: it ended with exit code 1"
    assert loop.compute.alive_ids == []
    assert loop.compute.starts.total() == 2


async def test_memory_is_held_until_the_last_process_has_ended(loop: WorkloadLoop) -> None:
    """One replica fails for good; the other takes its time to end, and nobody may have its memory meanwhile."""
    big = LimitsSpec(cpus=1.0, memory_bytes=4 * 2**30)
    key = await loop.add(restart="always", instances=2, socket="http", ready_path="/ready", limits=big)
    loop.compute.scripts[f"{key}.0.0"] = Script(exit_on_stop=None)
    await loop.drain()
    other = await loop.add(limits=big)
    loop.compute.finish(f"{key}.1.0", 1)
    await loop.drain()
    assert (await loop.get(other)).state is WorkloadState.PENDING
    assert (await loop.get(key)).state is not WorkloadState.FAILED
    loop.compute.kill(f"{key}.0.0", Cause.STOPPED)
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.FAILED
    assert (await loop.get(other)).state is WorkloadState.RUNNING


async def test_a_server_that_is_never_ready_is_given_up(loop: WorkloadLoop) -> None:
    key = await loop.add(restart="always", socket="http", ready_path="/ready", ready_seconds=600)
    await loop.drain()
    loop.clock.advance(599)
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.STARTING
    loop.clock.advance(2)
    await loop.drain()
    failed = await loop.get(key)
    assert (failed.state, failed.reason) == (WorkloadState.FAILED, "NEVER_READY")
    assert failed.message == "Instance 0 was not ready for requests within 10 minutes."
    assert loop.compute.alive_ids == []


async def test_a_server_that_is_late_keeps_no_other_waiting(
    loop: WorkloadLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, other = [await loop.add(restart="always", socket="http", ready_path="/ready") for _ in range(2)]
    await loop.drain()
    gate = asyncio.Event()
    asked: list[str] = []
    hinted: set[str] = set()
    observer = WorkloadObserver(loop.database, loop.compute, loop.workloads, lambda _, keys: hinted.update(keys))

    async def is_ready(socket_path: str, path: str) -> bool:
        asked.append(socket_path)
        if late in socket_path:
            await gate.wait()
        return True

    monkeypatch.setattr(probe, "is_ready", is_ready)
    for _ in range(3):
        await observer.look(await loop.workloads.live(), 0.2)
    assert hinted == {other}
    assert len([path for path in asked if late in path]) == 1  # one question at a time
    gate.set()
    async with asyncio.timeout(30):
        while hinted != {late, other}:
            await asyncio.sleep(0.01)


async def test_steps_of_many_runs_are_looked_at_together_and_an_end_at_once(loop: WorkloadLoop) -> None:
    keys = [await loop.add() for _ in range(8)]
    await loop.drain()
    asked: list[str] = []
    observer = WorkloadObserver(loop.database, loop.compute, loop.workloads, lambda _, keys: asked.extend(keys))
    watching = asyncio.create_task(observer.run())
    key = keys[0]
    instance_id = f"{key}.0.0"
    try:
        await asyncio.sleep(0.1)  # it has seen what is live
        for number in range(60):
            loop.compute.report(instance_id, {"step": f"step-{number}"})
            await asyncio.sleep(0.005)
        assert asked.count(key) <= 20  # not one for each step
        del asked[:]
        async with asyncio.timeout(30):  # the last step is not forgotten
            while key not in asked:
                await asyncio.sleep(0.01)
        loop.compute.finish(instance_id)
        del asked[:]
        async with asyncio.timeout(30):
            while key not in asked:
                await asyncio.sleep(0.01)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_stop_while_pending(loop: WorkloadLoop) -> None:
    await loop.add(limits=LimitsSpec(cpus=1.0, memory_bytes=8 * 2**30))
    key = await loop.add()
    await loop.drain()
    await loop.ask(key, Desired.STOP)
    await loop.drain()
    stopped = await loop.get(key)
    assert (stopped.state, stopped.message) == (WorkloadState.STOPPED, "Stopped before it began.")
    assert loop.compute.starts[f"{key}.0.0"] == 0


@pytest.mark.parametrize("is_slow", [True, False])
async def test_stop_while_starting_or_running(loop: WorkloadLoop, is_slow: bool) -> None:
    key = await loop.add(instances=2)
    loop.compute.scripts[f"{key}.0.0"] = Script(is_slow=is_slow, exit_on_stop=None)
    await loop.drain()
    await loop.ask(key, Desired.STOP)
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.STOPPING
    loop.compute.kill(f"{key}.0.0", Cause.STOPPED)
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.STOPPED


async def test_a_stop_that_comes_during_the_launch(loop: WorkloadLoop) -> None:
    """Asked for after the reconciler has read the record, and before it launches: nothing is started."""
    key = await loop.add()
    asked = False

    async def ask(verb: str, _id: str) -> None:
        nonlocal asked
        if verb == "observe" and not asked:
            asked = True
            await loop.ask(key, Desired.STOP)

    loop.compute.before = ask
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.STOPPED
    assert loop.compute.starts.total() == 0


async def test_what_ended_well_before_the_stop_succeeded(loop: WorkloadLoop) -> None:
    key = await loop.add()
    await loop.drain()
    loop.compute.finish(f"{key}.0.0")
    await loop.ask(key, Desired.STOP)
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.SUCCEEDED


@pytest.mark.parametrize(
    "stage", ["new", "pending", "starting", "running", "stopping", "succeeded", "failed", "backoff"]
)
async def test_deletion_wins_at_every_stage(loop: WorkloadLoop, stage: str) -> None:
    if stage == "pending":
        await loop.add(limits=LimitsSpec(cpus=1.0, memory_bytes=8 * 2**30))
    key = await loop.add(instances=2)
    first = f"{key}.0.0"
    if stage == "starting":
        loop.compute.scripts[first] = Script(is_slow=True)
    if stage == "backoff":
        loop.compute.scripts[first] = Script(launch_failures=deque(["after"] * 9))
    if stage != "new":
        await loop.drain()
    if stage == "stopping":
        loop.compute.scripts[first] = Script(exit_on_stop=None)
        await loop.ask(key, Desired.STOP)
        await loop.drain()
        loop.compute.scripts[first] = Script()
    if stage in ("succeeded", "failed"):
        for index in range(2):
            loop.compute.finish(f"{key}.{index}.0", 0 if stage == "succeeded" else 1)
        await loop.drain()
    await loop.ask(key, Desired.DELETE)
    await loop.ask(key, Desired.STOP)  # comes too late: deleting wins
    for _ in range(4):
        await loop.drain()
        loop.clock.advance(6)
    assert await loop.find(key) is None
    assert [each for each in loop.compute.alive_ids if each.startswith(key)] == []
    assert loop.compute.seen(first).phase is Phase.ABSENT
    async with loop.database.read() as session:
        assert (await session.scalars(select(WorkItemRow).where(WorkItemRow.key == key))).all() == []
        assert (await session.scalars(select(EventRow).where(EventRow.key == key))).all() == []


async def test_deletion_waits_for_the_last_lines_of_what_ended_well_but_not_for_ever(loop: WorkloadLoop) -> None:
    shipped = await loop.add(log=LogSpec(category="training"))
    unshipped = await loop.add(log=LogSpec(category="training"))
    await loop.drain()
    for key in (shipped, unshipped):
        loop.compute.finish(f"{key}.0.0")
    await loop.drain()
    for key in (shipped, unshipped):
        await loop.ask(key, Desired.DELETE)
    await loop.drain()
    assert await loop.find(shipped) is not None
    await loop.workloads.mark_shipped(shipped)
    loop.clock.advance(1)
    await loop.drain()
    assert await loop.find(shipped) is None
    assert await loop.find(unshipped) is not None
    loop.clock.advance(31)
    await loop.drain()
    assert await loop.find(unshipped) is None


async def test_a_launch_that_comes_after_the_end_is_ended(loop: WorkloadLoop) -> None:
    """A server that slept through its lease may still launch; whoever hears of it sees that it does not stay."""
    key = await loop.add()
    await loop.drain()
    instance = loop.compute.instance(f"{key}.0.0")
    await loop.ask(key, Desired.STOP)
    await loop.drain()
    loop.compute.vanish(f"{key}.0.0")
    await loop.compute.launch(instance)
    await loop.hint(key)
    await loop.drain()
    assert loop.compute.alive_ids == []


async def test_a_report_that_no_database_would_take(loop: WorkloadLoop) -> None:
    key = await loop.add()
    await loop.drain()
    deep: dict[str, object] = {}
    for _ in range(50):
        deep = {"deeper": deep}
    loop.compute.report(
        f"{key}.0.0",
        {
            "message": "a\x00b\ud800",
            "progress": float("nan"),
            "far": float("inf"),
            "huge": 10**400,
            "deep": deep,
            "n": 1,
        },
    )
    await loop.drain()
    report = (await loop.get(key)).report
    assert report["message"] == "a\N{REPLACEMENT CHARACTER}b?"
    assert (report["progress"], report["far"], report["huge"], report["n"]) == (None, None, None, 1)
    assert await loop.drain() == 0  # and it does not look new each time


async def test_the_backend_can_not_be_reached_for_a_while(loop: WorkloadLoop) -> None:
    key = await loop.add()
    is_away = True

    async def fail(_verb: str, _id: str) -> None:
        if is_away:
            raise RetryLater("the place is not reachable")

    loop.compute.before = fail
    for _ in range(3):
        await loop.drain()
        loop.clock.advance(61)
    is_away = False
    await loop.drain()
    assert (await loop.get(key)).state is WorkloadState.RUNNING
