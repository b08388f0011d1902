"""Spare workloads: in nobody's way, given once, told what they are then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import NO_ROOM, Desired, LimitsSpec
from modelyard.testing.compute import Script
from modelyard.testing.workloads import WorkloadLoop, workload_loop, workload_spec

GIB = 2**30


def sized(gib: int, **fields: Any) -> dict[str, Any]:
    return {"restart": "always", "limits": LimitsSpec(cpus=0.5, memory_bytes=gib * GIB)} | fields


SPARE = sized(2, is_spare=True, role="spare", title="a spare one")


@pytest.fixture
async def loop(database_url: str) -> AsyncIterator[WorkloadLoop]:
    """A machine of 8 GiB."""
    async with workload_loop(database_url, 4, 8) as loop:
        yield loop


async def give(loop: WorkloadLoop, key: str, told: str = '{"yours": 1}') -> bool:
    async with loop.database.write() as session:
        return await loop.workloads.give(session, key, role="real", title="a real one", told=told)


async def test_as_many_make_way_as_it_takes(loop: WorkloadLoop) -> None:
    first, second, third = [await loop.add(**SPARE) for _ in range(3)]
    await loop.drain()
    assert len(loop.compute.alive_ids) == 3
    real = await loop.add(**sized(4))
    await loop.drain()
    assert (await loop.get(real)).state is WorkloadState.RUNNING
    assert await loop.find(first) is None, "the oldest went"
    assert [await loop.find(key) is not None for key in (second, third)] == [True, True]


async def test_none_makes_way_in_vain(loop: WorkloadLoop) -> None:
    large = await loop.add(**sized(5))
    await loop.drain()
    spare = await loop.add(**SPARE)
    await loop.drain()
    waiting = await loop.add(**sized(4))
    await loop.drain()
    assert (await loop.get(waiting)).reason == NO_ROOM
    assert f"{spare}.0.0" in loop.compute.alive_ids
    assert f"{large}.0.0" in loop.compute.alive_ids


async def test_more_instances_of_a_server_need_its_room_too(loop: WorkloadLoop) -> None:
    server = await loop.add(**sized(3))
    await loop.drain()
    spare = await loop.add(**sized(4, is_spare=True))
    await loop.drain()
    async with loop.database.write() as session:
        await loop.workloads.resize(session, server, 2)
    await loop.drain()
    loop.clock.advance(20.0)
    await loop.drain()
    assert loop.compute.alive_ids == [f"{server}.0.0", f"{server}.1.0"]
    assert await loop.find(spare) is None


async def test_it_waits_for_no_room(loop: WorkloadLoop) -> None:
    large = await loop.add(**sized(7))
    await loop.drain()
    spare = await loop.add(**SPARE)
    await loop.drain()
    assert ((await loop.get(spare)).state, (await loop.get(spare)).reason) == (WorkloadState.STOPPED, NO_ROOM)
    async with loop.database.read() as session:
        assert not await loop.workloads.has_room_for_spare(session, workload_spec(**SPARE))
    assert (await loop.get(large)).state is WorkloadState.RUNNING


async def test_what_was_given_stays_and_is_told(loop: WorkloadLoop) -> None:
    spare = await loop.add(**SPARE)
    await loop.drain()
    assert sorted(await asyncio.gather(*(give(loop, spare) for _ in range(4)))) == [False, False, False, True]
    seen = await loop.workloads.live()
    assert [(each.spec.title, each.spec.is_spare) for each in seen] == [("a real one", False)]
    await loop.drain()
    instance = f"{spare}.0.0"
    assert loop.compute.told[instance] == '{"yours": 1}'
    assert (loop.compute.instance(instance).role, loop.compute.instance(instance).title) == ("real", "a real one")
    telling = [call for call in loop.compute.calls if call[0] == "tell"]
    waiting = await loop.add(**sized(7))
    await loop.drain()
    assert (await loop.get(waiting)).reason == NO_ROOM, "it makes way for nobody any more"
    loop.compute.finish(instance, 1)
    loop.clock.advance(5.0)
    await loop.drain()
    (again,) = loop.compute.alive_ids
    assert loop.compute.instance(again).task.files["told.json"] == '{"yours": 1}'  # type: ignore[union-attr]
    assert len([call for call in loop.compute.calls if call[0] == "tell"]) <= len(telling) + 1


async def test_it_is_given_or_makes_way_and_never_both(loop: WorkloadLoop) -> None:
    for _ in range(5):
        spare = await loop.add(**SPARE)
        await loop.drain()
        real = await loop.add(**sized(7))
        is_given, _ = await asyncio.gather(give(loop, spare), loop.drain())
        await loop.drain()
        assert (await loop.find(spare) is not None) == is_given
        assert (await loop.get(real)).state is (WorkloadState.PENDING if is_given else WorkloadState.RUNNING)
        for key in (spare, real):
            if await loop.find(key) is not None:
                await loop.ask(key, Desired.DELETE)
        await loop.drain()


async def test_one_that_is_not_ready_or_on_its_way_out_is_not_given(loop: WorkloadLoop) -> None:
    key = "01a20000-0000-7000-8000-000000000000"
    loop.compute.scripts[f"{key}.0.0"] = Script(is_slow=True)
    await loop.add(key, **SPARE)
    await loop.drain()
    assert not await give(loop, key)
    loop.compute.run(f"{key}.0.0")
    await loop.drain()
    loop.compute.scripts[f"{key}.0.0"].exit_on_stop = None
    await loop.add(**sized(8))
    await loop.drain()
    assert not await give(loop, key)
    assert not await give(loop, "01a20000-0000-7000-8000-000000000001")
