"""Who may start: memory is never promised twice, nobody is starved, and who waits is told for what."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.compute.port import Capacity, Cause
from modelyard.db.engine import Database, sqlite_url
from modelyard.resources.workloads.admission import AdmissionSettings, check_ever_fits, demand, lacking
from modelyard.resources.workloads.errors import NeverFits
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Desired, Held, LimitsSpec
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.compute import FakeCompute, Script
from modelyard.testing.workloads import WorkloadLoop, make_tables, workload_spec

GIB = 2**30
PLACE = Capacity(cpus=2.0, memory_bytes=8 * GIB, gpus=1)
SETTINGS = AdmissionSettings()


def held(cpus: float = 0.0, gib: float = 0, gpus: int = 0) -> Held:
    return Held(cpus=cpus, memory_bytes=int(gib * GIB), gpus=gpus)


def size(gib: float, cpus: float = 0.5, gpus: int = 0) -> LimitsSpec:
    return LimitsSpec(cpus=cpus, memory_bytes=int(gib * GIB), gpus=gpus)


@pytest.mark.parametrize(
    ("wanted", "taken", "phrase"),
    [
        (held(1, 2), held(7, 6), None),
        (held(1, 2.5), held(0, 6), "2.5 GiB of memory (2.0 GiB of 8.0 GiB are free)"),
        (held(1, 1), held(0, 9), "1.0 GiB of memory (0.0 GiB of 8.0 GiB are free)"),
        (held(2, 1), held(7, 1), "2 cores (1 of 8 can still be promised)"),
        (held(0.1, 1), held(7.9, 1), None),
        (held(1, 1, 1), held(0, 0, 1), "1 GPUs (0 of 1 are free)"),
    ],
)
def test_what_is_lacking_is_named(wanted: Held, taken: Held, phrase: str | None) -> None:
    assert lacking(wanted, taken, PLACE, SETTINGS) == phrase


@pytest.mark.parametrize("wanted", [held(1, 8.1), held(8.5, 1), held(1, 1, 2)])
def test_what_never_fits_is_refused_with_what_there_is(wanted: Held) -> None:
    with pytest.raises(NeverFits, match=r"asks for .*, but this platform has .* in all"):
        check_ever_fits(wanted, PLACE, SETTINGS)
    check_ever_fits(held(8, 8, 1), PLACE, SETTINGS)


def test_what_a_workload_holds() -> None:
    assert demand(workload_spec(limits=size(2, 1.5, 1), instances=3)) == held(4.5, 6, 3)
    assert demand(workload_spec(limits=size(2, 4), cpu_share=0.25)) == held(1, 2)  # a notebook
    assert demand(workload_spec(limits=size(64), command=None)) == held()  # a build


@pytest.fixture
async def loop(tmp_path: Path) -> AsyncIterator[WorkloadLoop]:
    made = await open_loop(tmp_path / "test.db", PLACE)
    yield made
    await made.database.close()


async def open_loop(path: Path, capacity: Capacity) -> WorkloadLoop:
    database = Database(sqlite_url(path))
    await make_tables(database)
    clock = ShiftedClock()
    return WorkloadLoop(database, FakeCompute(capacity, clock), clock)


async def states(loop: WorkloadLoop, *keys: str) -> list[str]:
    return [(await loop.get(key)).state.value for key in keys]


async def test_who_waits_is_told_for_what_and_starts_when_there_is_room(loop: WorkloadLoop) -> None:
    first = await loop.add(limits=size(5), title="training 'big'")
    second = await loop.add(limits=size(4), title="training 'second'")
    third = await loop.add(limits=size(1), title="training 'third'")
    await loop.drain()
    assert await states(loop, first, second, third) == ["RUNNING", "PENDING", "PENDING"]
    assert (await loop.get(second)).message == (
        "Waiting for 4.0 GiB of memory (3.0 GiB of 8.0 GiB are free); in use by training 'big'."
    )
    assert (await loop.get(third)).message == "Waiting for its turn behind training 'second'."
    assert {(await loop.get(key)).reason for key in (second, third)} == {"WAITING_FOR_ROOM"}
    loop.compute.finish(f"{first}.0.0")
    await loop.drain()  # nobody had to wait for a poll: room that appears wakes who waits for it
    assert await states(loop, first, second, third) == ["SUCCEEDED", "RUNNING", "RUNNING"]


@pytest.mark.parametrize("how", ["stop", "delete"])
async def test_the_first_in_line_that_goes_lets_the_next_one_in(loop: WorkloadLoop, how: str) -> None:
    await loop.add(limits=size(5))
    blocked = await loop.add(limits=size(8))
    small = await loop.add(limits=size(1))
    await loop.drain()
    assert await states(loop, blocked, small) == ["PENDING", "PENDING"]
    await loop.ask(blocked, Desired(how))
    await loop.drain()
    assert await states(loop, small) == ["RUNNING"]


async def test_a_large_one_is_not_starved_by_small_ones(loop: WorkloadLoop) -> None:
    running = [await loop.add(limits=size(2)) for _ in range(4)]
    await loop.drain()
    large = await loop.add(limits=size(8))
    for _ in range(8):  # small ones come all the time, and one ends each time
        await loop.add(limits=size(1))
        if running:
            loop.compute.finish(f"{running.pop()}.0.0")
        await loop.drain()
    assert await states(loop, large) == ["RUNNING"]
    assert loop.compute.alive_ids == [f"{large}.0.0"]


async def test_builds_wait_for_nobody(loop: WorkloadLoop) -> None:
    await loop.add(limits=size(8))
    await loop.add(limits=size(8))
    await loop.drain()
    build = await loop.add(limits=size(64), command=None)
    await loop.drain()
    assert await states(loop, build) == ["RUNNING"]


async def test_what_holds_only_cores_is_admitted_too(loop: WorkloadLoop) -> None:
    one = await loop.add(limits=size(0, cpus=7))
    two = await loop.add(limits=size(0, cpus=2))
    await loop.drain()
    assert await states(loop, one, two) == ["RUNNING", "PENDING"]


async def test_a_machine_that_has_become_smaller_blocks_nobody(tmp_path: Path) -> None:
    before = await open_loop(tmp_path / "test.db", Capacity(4.0, 64 * GIB))
    large = await before.add(limits=size(32))
    small = await before.add(limits=size(1))
    after = WorkloadLoop(before.database, FakeCompute(Capacity(4.0, 8 * GIB)), before.clock)
    await after.drain()
    failed = await after.get(large)
    assert (failed.state, failed.reason) == (WorkloadState.FAILED, "NEVER_FITS")
    assert failed.message is not None
    assert "asks for 32.0 GiB of memory" in failed.message
    assert await states(after, small) == ["RUNNING"]
    await before.database.close()


async def test_a_long_line_costs_no_writes_while_nothing_changes(loop: WorkloadLoop) -> None:
    await loop.add(limits=size(8))
    for _ in range(30):
        await loop.add(limits=size(8))
    await loop.drain()
    loop.clock.advance(61)
    moves = (await loop.drain(), await loop.drain())
    assert moves == (30, 0)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([0.5, 1.0, 2.0, 3.5, 8.0]), st.integers(1, 2)),
        st.tuples(
            st.sampled_from(["finish", "lose", "oom", "stop", "delete", "slow stop", "drain", "wait"]),
            st.integers(0, 9),
        ),
    ),
    min_size=5,
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_memory_is_never_promised_twice(steps: list[tuple[str, float] | tuple[str, float, int]]) -> None:
    asyncio.run(_never_promised_twice(steps))


async def _never_promised_twice(steps: list[tuple[str, float] | tuple[str, float, int]]) -> None:
    """Two servers share the queue; whatever happens in whatever order, what runs fits, and in the end nobody is left waiting."""
    with tempfile.TemporaryDirectory() as directory:
        loop = await open_loop(Path(directory) / "test.db", Capacity(64.0, 8 * GIB))
        other = WorkloadLoop(loop.database, loop.compute, loop.clock, owner="server-b")
        most = 0

        async def watch(_verb: str, _id: str) -> None:
            nonlocal most
            most = max(most, loop.compute.held_memory_bytes())

        loop.compute.before = loop.compute.after = watch
        keys: list[str] = []
        for step in steps:
            if step[0] == "add":
                instances = int(step[2]) if step[1] < 4 and len(step) == 3 else 1
                keys.append(await loop.add(limits=size(step[1]), instances=instances, lost_restarts=1))
                continue
            alive = sorted(loop.compute.alive_ids)
            await _do(step[0], alive[int(step[1]) % len(alive)] if alive else None, loop)
            await asyncio.gather(loop.drain(), other.drain())
            assert loop.compute.held_memory_bytes() <= 8 * GIB
        for _ in range(len(keys) * 4 + 4):
            for each in loop.compute.alive_ids:
                loop.compute.finish(each)
            await asyncio.gather(loop.drain(), other.drain())
            loop.clock.advance(5)
        left = [workload for key in keys if (workload := await loop.find(key)) is not None]
        assert {workload.state for workload in left} <= {
            WorkloadState.SUCCEEDED,
            WorkloadState.FAILED,
            WorkloadState.STOPPED,
        }
        assert most <= 8 * GIB
        assert all(count == 1 for count in loop.compute.starts.values())
        await loop.database.close()


async def _do(what: str, instance_id: str | None, loop: WorkloadLoop) -> None:
    if what == "wait":
        loop.clock.advance(20)
    if instance_id is None or what in ("drain", "wait"):
        return
    match what:
        case "finish":
            loop.compute.finish(instance_id)
        case "lose":
            loop.compute.lose(instance_id)
        case "oom":
            loop.compute.kill(instance_id, Cause.OUT_OF_MEMORY)
        case "slow stop":
            loop.compute.scripts[instance_id] = Script(exit_on_stop=None)
            await loop.ask(instance_id.split(".")[0], Desired.STOP)
        case _:
            await loop.ask(instance_id.split(".")[0], Desired(what))
