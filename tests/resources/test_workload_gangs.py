"""Workloads of several instances, and those that are tried again: together or not at all, on a fake place that misbehaves."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from modelyard.compute.port import Cause, Exit
from modelyard.control.events import events_of
from modelyard.kit.clock import utc_now
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import ATTEMPT, INDEX, CommandSpec, Desired
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.compute import Script
from modelyard.testing.workloads import WorkloadLoop, workload_loop

GANG: dict[str, Any] = {"instances": 2, "ports": ("master", "worker")}
COMMAND = CommandSpec(argv=("run", INDEX, ATTEMPT))


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def loop(database_url: str, clock: ShiftedClock) -> AsyncIterator[WorkloadLoop]:
    async with workload_loop(database_url, 8, 16, clock) as loop:
        yield loop


def waits(loop: WorkloadLoop, *ids: str) -> None:
    for instance_id in ids:
        loop.compute.report(instance_id, {"step": "waiting"})


async def messages(loop: WorkloadLoop, workload_id: str) -> list[str]:
    async with loop.database.read() as session:
        return [event.message or "" for event in await events_of(session, "workload", workload_id)]


async def test_they_are_introduced_when_all_of_them_wait(loop: WorkloadLoop) -> None:
    name = await loop.add(**GANG)
    await loop.drain()
    waits(loop, f"{name}.0.0")
    await loop.drain()
    assert loop.compute.peers == {}
    loop.compute.report(f"{name}.1.0", {"step": "fetching"})
    await loop.drain()
    assert loop.compute.peers == {}
    waits(loop, f"{name}.1.0")
    await loop.drain()
    told = loop.compute.peers[f"{name}.0.0"]
    assert told == loop.compute.peers[f"{name}.1.0"]
    assert [(peer.index, peer.network.host) for peer in told] == [(0, f"{name}.0.0.test"), (1, f"{name}.1.0.test")]
    calls = loop.compute.calls.count(("introduce", f"{name}.0.0"))
    await loop.hint(name)
    await loop.drain()
    assert loop.compute.calls.count(("introduce", f"{name}.0.0")) == calls


async def test_an_introduction_that_broke_off_is_made_whole(loop: WorkloadLoop) -> None:
    name = await loop.add(**GANG)
    await loop.drain()
    waits(loop, f"{name}.0.0", f"{name}.1.0")
    broken = deque([True])

    async def break_off(verb: str, instance_id: str) -> None:
        if (verb, instance_id) == ("introduce", f"{name}.1.0") and broken and broken.popleft():
            raise OSError("the server was killed")

    loop.compute.before = break_off
    await loop.drain()
    assert set(loop.compute.peers) == {f"{name}.0.0"}
    loop.compute.report(f"{name}.0.0", {"step": "running"})
    loop.clock.advance(60)
    await loop.drain()
    assert set(loop.compute.peers) == {f"{name}.0.0", f"{name}.1.0"}


async def test_one_that_fails_first_is_blamed_and_the_others_end_soon(loop: WorkloadLoop, clock: ShiftedClock) -> None:
    name = await loop.add(instances=3, ports=("master",))
    for index in range(3):
        loop.compute.scripts[f"{name}.{index}.0"] = Script(exit_on_stop=None)
    await loop.drain()
    # The second one's process has failed and it keeps its checkpoints; the third one fails for want of it, and ends sooner.
    first_at, later_at = utc_now().isoformat(), (utc_now() + timedelta(seconds=1)).isoformat()
    loop.compute.report(f"{name}.1.0", {"step": "uploading", "exit_code": 7, "ended_at": first_at})
    loop.compute.report(f"{name}.2.0", {"step": "failed", "message": "lost peer", "exit_code": 1, "ended_at": later_at})
    loop.compute.finish(f"{name}.2.0", 1)
    await loop.drain()
    assert loop.compute.insisted == {f"{name}.0.0": 3.0}
    assert (await loop.get(name)).message == (
        "Instance 1: Its process has failed; what is to be kept is being kept. The other instances are ended."
    ) or "Instance 1" in str((await loop.get(name)).message)
    loop.compute.finish(f"{name}.0.0", 143)
    loop.compute.report(f"{name}.1.0", {"step": "failed", "message": "exit 7", "exit_code": 7, "ended_at": first_at})
    loop.compute.finish(f"{name}.1.0", 7)
    await loop.drain()
    seen = await loop.get(name)
    assert (seen.state, seen.message) == (WorkloadState.FAILED, "Instance 1: exit 7")
    assert seen.failed is not None
    assert seen.failed.index == 1


async def test_a_loss_is_not_the_fault_of_those_who_fail_after_it(loop: WorkloadLoop) -> None:
    name = await loop.add(**GANG)
    await loop.drain()
    loop.compute.finish(f"{name}.0.0", 1)
    loop.compute.lose(f"{name}.1.0")
    await loop.drain()
    seen = await loop.get(name)
    assert (seen.status.attempt, seen.status.lost_count) == (1, 1)
    assert sorted(loop.compute.alive_ids) == [f"{name}.0.1", f"{name}.1.1"]


async def test_a_time_limit_is_the_reason_whoever_else_fails(loop: WorkloadLoop) -> None:
    name = await loop.add(**GANG, timeout_seconds=600.0, failure_restarts=3)
    await loop.drain()
    loop.compute.finish(f"{name}.1.0", 1)
    loop.compute.kill(f"{name}.0.0", Cause.TIME_LIMIT, "Stopped at its time limit of 600 s.")
    await loop.drain()
    seen = await loop.get(name)
    assert (seen.state, seen.reason) == (WorkloadState.FAILED, "TIME_LIMIT")
    assert seen.message == "Stopped at its time limit of 10 minutes."


async def test_a_launch_that_is_refused_ends_those_that_were_launched(loop: WorkloadLoop) -> None:
    name = await loop.add("gang", **GANG)
    loop.compute.scripts["gang.1.0"] = Script(refusal="No such mount.")
    await loop.drain()
    seen = await loop.get(name)
    assert (seen.state, seen.reason) == (WorkloadState.FAILED, "LAUNCH_FAILED")
    assert seen.message == "Instance 1: No such mount."
    assert loop.compute.alive_ids == []


async def test_a_partial_launch_is_undone_and_tried_again(loop: WorkloadLoop, clock: ShiftedClock) -> None:
    await loop.add("gang", **GANG)
    loop.compute.scripts["gang.1.0"] = Script(launch_failures=deque(["before"] * 500))
    await loop.drain()
    seen = await loop.get("gang")
    assert (seen.state, seen.reason) == (WorkloadState.STARTING, "LAUNCHING")
    assert seen.message == "Instance 1 can't be started: the place is not ready"
    assert loop.compute.alive_ids == ["gang.0.0"]
    for _ in range(35):
        clock.advance(2)
        await loop.drain()
    seen = await loop.get("gang")
    assert (seen.status.attempt, seen.status.lost_count, seen.status.obstacle) == (1, 0, None)
    assert sorted(loop.compute.alive_ids) == ["gang.0.1", "gang.1.1"]
    assert any("The others are given back, and it is tried again." in text for text in await messages(loop, "gang"))
    assert any("Not all instances could be started" in text for text in await messages(loop, "gang"))


async def test_a_failure_is_tried_again_as_often_as_allowed(loop: WorkloadLoop, clock: ShiftedClock) -> None:
    name = await loop.add(failure_restarts=2, fatal_codes=(67,), command=COMMAND)
    for attempt, wait_seconds in ((0, 1), (1, 2)):
        await loop.drain()
        assert loop.compute.alive_ids == [f"{name}.0.{attempt}"]
        task = loop.compute.instance(f"{name}.0.{attempt}").task
        assert getattr(task, "argv", None) == ("run", "0", str(attempt))
        loop.compute.finish(f"{name}.0.{attempt}", 3)
        await loop.drain()
        seen = await loop.get(name)
        assert (seen.state, seen.reason) == (WorkloadState.STARTING, "RESTART")
        assert seen.message == (
            f"it ended with exit code 3 Starting it again in {wait_seconds} s (restart {attempt + 1} of 2)."
        )
        assert loop.compute.alive_ids == []
        clock.advance(wait_seconds + 0.1)
    await loop.drain()
    loop.compute.finish(f"{name}.0.2", 3)
    await loop.drain()
    seen = await loop.get(name)
    assert seen.state is WorkloadState.FAILED
    assert seen.message == "it ended with exit code 3 It was the last of 3 attempts."
    # The output of all attempts stays to be read.
    assert seen.status.instance_ids == (f"{name}.0.2", f"{name}.0.0", f"{name}.0.1")


@pytest.mark.parametrize(
    "how",
    [
        Exit(Cause.EXITED, "no entry point", code=67),
        Exit(Cause.TIME_LIMIT, "Stopped at its time limit of 5 s.", signal=9),
        Exit(Cause.OUT_OF_STORAGE, "too many files", code=1),
        Exit(Cause.LAUNCH_FAILED, "no such program"),
    ],
)
async def test_what_would_end_in_the_same_way_is_not_tried_again(loop: WorkloadLoop, how: Exit) -> None:
    await loop.add("once", failure_restarts=5, fatal_codes=(67,))
    loop.compute.scripts["once.0.0"] = Script(exit_at_once=how)
    await loop.drain()
    seen = await loop.get("once")
    assert (seen.state, seen.reason, seen.status.attempt) == (WorkloadState.FAILED, how.cause.value, 0)


async def test_a_restart_keeps_its_room_and_its_time_limit(loop: WorkloadLoop, clock: ShiftedClock) -> None:
    name = await loop.add(failure_restarts=5, timeout_seconds=100.0)
    await loop.drain()
    assert loop.compute.instance(f"{name}.0.0").timeout_seconds == 100.0
    clock.advance(40)
    loop.compute.finish(f"{name}.0.0", 1)
    await loop.drain()
    clock.advance(2)
    await loop.drain()
    left = loop.compute.instance(f"{name}.0.1").timeout_seconds
    assert left == pytest.approx(60.0, abs=1.0)
    clock.advance(70)
    loop.compute.finish(f"{name}.0.1", 1)
    await loop.drain()
    seen = await loop.get(name)
    assert (seen.state, seen.reason) == (WorkloadState.FAILED, "TIME_LIMIT")
    assert seen.message == "Its time limit of 100 s is used up after 2 attempts."


async def test_a_stop_while_it_waits_for_its_next_attempt(loop: WorkloadLoop) -> None:
    name = await loop.add(failure_restarts=5)
    await loop.drain()
    loop.compute.finish(f"{name}.0.0", 1)
    await loop.drain()
    await loop.ask(name, Desired.STOP)
    await loop.drain()
    assert (await loop.get(name)).state is WorkloadState.STOPPED
    assert loop.compute.alive_ids == []
