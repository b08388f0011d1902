"""Instances that nobody knows of are ended; all others are left alone."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from modelyard.compute.port import Command, Instance, Limits, Phase
from modelyard.resources.workloads.model import Desired
from modelyard.resources.workloads.sweeper import OrphanSweeper
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.workloads import WorkloadLoop, workload_loop


@pytest.fixture
def clock() -> ShiftedClock:
    return ShiftedClock()


@pytest.fixture
async def loop(database_url: str, clock: ShiftedClock) -> AsyncIterator[WorkloadLoop]:
    async with workload_loop(database_url, 8, 16, clock) as loop:
        yield loop


def sweeper(loop: WorkloadLoop) -> OrphanSweeper:
    async def is_project(project_id: str) -> bool:
        return project_id == "project"

    return OrphanSweeper(loop.database, loop.compute, is_project, loop.clock)


def instance(workload_id: str, attempt: int = 0, project_id: str = "project") -> Instance:
    limits = Limits(cpus=1.0, memory_bytes=1)
    name = f"{workload_id}.0.{attempt}"
    return Instance(name, workload_id, 0, attempt, project_id, "training", Command(("run",)), limits)


async def test_a_launch_that_came_after_the_deletion_is_ended_and_removed(
    loop: WorkloadLoop, clock: ShiftedClock
) -> None:
    known = await loop.add()
    deleted = await loop.add()
    await loop.drain()
    late = loop.compute.instance(f"{deleted}.0.0")
    await loop.ask(deleted, Desired.DELETE)
    await loop.drain()
    assert await loop.find(deleted) is None
    await loop.compute.launch(late)  # the sender had slept all the while
    await loop.compute.launch(instance(known, attempt=7))  # an attempt that the workload has never made

    assert await sweeper(loop).sweep() == []  # it may still be on record in a moment
    clock.advance(700)
    orphans = sorted([f"{deleted}.0.0", f"{known}.0.7"])
    assert await sweeper(loop).sweep() == orphans
    assert loop.compute.alive_ids == [f"{known}.0.0"]
    assert await sweeper(loop).sweep() == orphans
    assert await sweeper(loop).sweep() == []
    assert loop.compute.seen(f"{deleted}.0.0").phase is Phase.ABSENT


async def test_what_has_ended_or_waits_is_known(loop: WorkloadLoop, clock: ShiftedClock) -> None:
    key = await loop.add(failure_restarts=3)
    await loop.drain()
    loop.compute.finish(f"{key}.0.0", 1)
    await loop.drain()
    clock.advance(700)
    assert await sweeper(loop).sweep() == []
    await loop.drain()
    clock.advance(700)
    assert await sweeper(loop).sweep() == []
    assert loop.compute.alive_ids == [f"{key}.0.1"]


async def test_another_database_ends_nothing(
    loop: WorkloadLoop, clock: ShiftedClock, caplog: pytest.LogCaptureFixture
) -> None:
    await loop.compute.launch(instance("stranger", project_id="elsewhere"))
    clock.advance(700)
    with caplog.at_level(logging.WARNING):
        assert await sweeper(loop).sweep() == []
    assert loop.compute.alive_ids == ["stranger.0.0"]
    assert "stranger.0.0" in caplog.text
    assert "is it the right one?" in caplog.text
