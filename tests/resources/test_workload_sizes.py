"""Workloads that are kept up and get more instances, or fewer, or none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modelyard.compute.port import Cause, Phase
from modelyard.db.engine import sqlite_url
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Desired, LimitsSpec
from modelyard.testing.compute import Script
from modelyard.testing.workloads import WorkloadLoop, workload_loop

GIB = 2**30
SERVER = {"restart": "always", "socket": "http", "limits": LimitsSpec(cpus=1.0, memory_bytes=2 * GIB)}


@pytest.fixture
async def loop(tmp_path: Path) -> AsyncIterator[WorkloadLoop]:
    async with workload_loop(sqlite_url(tmp_path / "test.db"), 4, 8) as loop:
        yield loop


async def resize(loop: WorkloadLoop, key: str, count: int) -> bool:
    async with loop.database.write() as session:
        has_changed = await loop.workloads.resize(session, key, count)
    await loop.drain()
    return has_changed


async def test_it_grows_shrinks_rests_and_wakes(loop: WorkloadLoop) -> None:
    key = await loop.add(**SERVER)
    await loop.drain()
    assert await resize(loop, key, 3)
    assert not await resize(loop, key, 3)
    assert loop.compute.alive_ids == [f"{key}.0.0", f"{key}.1.0", f"{key}.2.0"]
    assert (await loop.get(key)).spec.instances == 3
    await resize(loop, key, 0)
    resting = await loop.get(key)
    assert loop.compute.alive_ids == []
    assert (resting.state, resting.reason, resting.status.instances) == (WorkloadState.RUNNING, None, ())
    await resize(loop, key, 2)
    woken = await loop.get(key)
    assert woken.state is WorkloadState.RUNNING
    assert loop.compute.alive_ids == [f"{key}.0.1", f"{key}.1.1"]  # never an id that was there before
    await loop.ask(key, Desired.DELETE)
    await loop.drain()
    assert await loop.find(key) is None
    assert [loop.compute.seen(f"{key}.{index}.{attempt}").phase for index in range(3) for attempt in range(2)] == [
        Phase.ABSENT
    ] * 6


async def test_memory_is_given_back_when_the_process_has_ended_and_not_before(loop: WorkloadLoop) -> None:
    key = await loop.add(instances=3, **SERVER)
    loop.compute.scripts[f"{key}.2.0"] = Script(exit_on_stop=None)
    await loop.drain()
    other = await loop.add(limits=LimitsSpec(cpus=1.0, memory_bytes=4 * GIB))
    await resize(loop, key, 2)
    assert f"{key}.2.0" in loop.compute.alive_ids
    assert (await loop.get(other)).state is WorkloadState.PENDING
    await resize(loop, key, 3)  # wanted again while it ends: its number is not free yet
    assert loop.compute.starts[f"{key}.2.1"] == 0
    await resize(loop, key, 2)
    loop.compute.kill(f"{key}.2.0", Cause.STOPPED)
    await loop.drain()
    assert (await loop.get(other)).state is WorkloadState.RUNNING


async def test_it_grows_as_far_as_there_is_room_and_says_what_it_waits_for(loop: WorkloadLoop) -> None:
    key = await loop.add(**SERVER)
    other = await loop.add(limits=LimitsSpec(cpus=1.0, memory_bytes=4 * GIB))
    await loop.drain()
    await resize(loop, key, 3)
    grown = await loop.get(key)
    assert set(loop.compute.alive_ids) == {f"{key}.0.0", f"{key}.1.0", f"{other}.0.0"}
    assert (grown.state, grown.reason) == (WorkloadState.RUNNING, "WAITING_FOR_ROOM")
    assert str(grown.message).startswith("Waiting for 2.0 GiB of memory (0.0 GiB of 8.0 GiB are free); in use by ")
    loop.compute.finish(f"{other}.0.0")
    await loop.drain()
    loop.clock.advance(16)
    await loop.drain()
    grown = await loop.get(key)
    assert (len(grown.status.instances), grown.reason) == (3, None)


async def test_an_added_server_that_fails_is_tried_again_and_the_others_go_on(loop: WorkloadLoop) -> None:
    key = await loop.add(**SERVER)
    await loop.drain()
    await resize(loop, key, 2)
    loop.compute.finish(f"{key}.1.0", 1)
    await loop.drain()
    assert loop.compute.alive_ids == [f"{key}.0.0", f"{key}.1.1"]
    assert (await loop.get(key)).state is WorkloadState.RUNNING
    loop.compute.kill(f"{key}.1.1", Cause.SIGNAL)  # and one that waits to be started again may be taken away
    await loop.drain()
    await resize(loop, key, 1)
    assert loop.compute.alive_ids == [f"{key}.0.0"]
    await resize(loop, key, 2)
    assert loop.compute.alive_ids == [f"{key}.0.0", f"{key}.1.2"]


async def test_a_platform_that_forgets_in_the_middle_grows_no_twins(loop: WorkloadLoop) -> None:
    """The answer to a launch gets lost: the same instance is meant the next time."""
    key = await loop.add(**SERVER)
    await loop.drain()
    loop.compute.scripts[f"{key}.1.0"] = Script()
    loop.compute.scripts[f"{key}.1.0"].launch_failures.append("after")
    await resize(loop, key, 2)
    loop.clock.advance(5)
    await loop.drain()
    assert loop.compute.alive_ids == [f"{key}.0.0", f"{key}.1.0"]
    assert loop.compute.starts[f"{key}.1.0"] == 1
