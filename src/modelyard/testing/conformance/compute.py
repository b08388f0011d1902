"""The contract of the compute port, as tests that run on every backend.

Subclass `ComputeContract` in a test module and give it the fixture `subject`: a `ComputeSubject` on a place of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from modelyard.compute.port import Cause, Compute, HasCapacity, Instance, Observation, Peer, Phase
from modelyard.kit.errors import RetryLater

_DEADLINE_SECONDS = 60.0


class ComputeSubject(Protocol):
    """A backend under test, and instances for it."""

    @property
    def compute(self) -> Compute:
        """The backend."""
        ...

    def runs(self) -> Instance:
        """A new instance that runs until it is asked to end."""
        ...

    def ends(self, code: int, printed: str = "") -> Instance:
        """A new instance that prints this and ends with this exit code."""
        ...

    def reopened(self) -> Compute:
        """The backend as the next server finds it, with all that was launched before."""
        ...


class ComputeContract:
    """What every backend keeps."""

    async def test_what_is_launched_runs(self, subject: ComputeSubject) -> None:
        """Until it is asked to end, with a start and without an end."""
        instance = subject.runs()
        await subject.compute.launch(instance)
        seen = await _until(subject.compute, instance.id, lambda seen: seen.phase is Phase.RUNNING)
        assert seen.started_at is not None
        assert seen.started_at.tzinfo is not None
        assert (seen.exit, seen.ended_at) == (None, None)

    async def test_launching_twice_is_launching_once(self, subject: ComputeSubject) -> None:
        """Also at the same time, and after its end."""
        instance = subject.ends(0, "once\n")
        await asyncio.gather(*(subject.compute.launch(instance) for _ in range(3)))
        first = await _until_ended(subject.compute, instance.id)
        await subject.compute.launch(instance)
        again = await _until_ended(subject.compute, instance.id)
        assert again.ended_at == first.ended_at
        assert (await subject.compute.read_logs(instance.id, 0, 1000)).data == b"once\n"

    async def test_observations_come_in_the_order_asked(self, subject: ComputeSubject) -> None:
        """And what was never launched is ABSENT."""
        instance = subject.runs()
        await subject.compute.launch(instance)
        seen = await subject.compute.observe(["unknown.0.0", instance.id, "unknown.1.0"])
        assert [each.id for each in seen] == ["unknown.0.0", instance.id, "unknown.1.0"]
        assert [each.phase is Phase.ABSENT for each in seen] == [True, False, True]
        assert list(await subject.compute.observe([])) == []

    async def test_exit_codes_are_told(self, subject: ComputeSubject) -> None:
        """With a sentence, and times in order."""
        for code in (0, 3):
            instance = subject.ends(code)
            await subject.compute.launch(instance)
            seen = await _until_ended(subject.compute, instance.id)
            assert seen.exit is not None
            assert (seen.exit.cause, seen.exit.code) == (Cause.EXITED, code)
            assert seen.exit.message
            assert seen.started_at is not None
            assert seen.ended_at is not None
            assert seen.started_at <= seen.ended_at

    async def test_stop(self, subject: ComputeSubject) -> None:
        """It ends, and the cause is that it was asked to; asking again, or what has ended, or what never was, is fine."""
        instance = subject.runs()
        await subject.compute.launch(instance)
        await _until(subject.compute, instance.id, lambda seen: seen.phase is Phase.RUNNING)
        await subject.compute.stop(instance.id)
        await subject.compute.stop(instance.id)
        seen = await _until_ended(subject.compute, instance.id)
        assert seen.exit is not None
        assert seen.exit.cause is Cause.STOPPED
        await subject.compute.stop(instance.id)
        await subject.compute.stop("unknown.0.0")
        assert (await subject.compute.observe([instance.id]))[0].exit == seen.exit

    async def test_remove(self, subject: ComputeSubject) -> None:
        """Only what has ended, and then for good; removing it again, or what never was, is fine."""
        instance = subject.runs()
        await subject.compute.launch(instance)
        try:
            await subject.compute.remove(instance.id)
        except RetryLater:
            pass
        else:
            raise AssertionError("an instance that runs was removed")
        await subject.compute.stop(instance.id)
        await _until_ended(subject.compute, instance.id)
        for _ in range(2):
            await subject.compute.remove(instance.id)
        assert (await subject.compute.observe([instance.id]))[0].phase is Phase.ABSENT
        await subject.compute.remove("unknown.0.0")

    async def test_output_in_pieces(self, subject: ComputeSubject) -> None:
        """Every byte once, from any offset, and the end is told."""
        text = "".join(f"line {number}\n" for number in range(200))
        instance = subject.ends(0, text)
        await subject.compute.launch(instance)
        await _until_ended(subject.compute, instance.id)
        read = b""
        while True:
            chunk = await subject.compute.read_logs(instance.id, len(read), 100)
            assert chunk.offset == len(read)
            assert chunk.next_offset == chunk.offset + len(chunk.data)
            assert len(chunk.data) <= 100
            read += chunk.data
            if chunk.is_end:
                break
        assert read.decode() == text
        beyond = await subject.compute.read_logs(instance.id, 2**62, 1)
        assert (beyond.data, beyond.next_offset, beyond.is_end) == (b"", len(text), True)

    async def test_output_of_what_runs_has_no_end_and_of_what_never_was_is_empty(self, subject: ComputeSubject) -> None:
        """So that a reader knows whether to come back."""
        instance = subject.runs()
        await subject.compute.launch(instance)
        assert not (await subject.compute.read_logs(instance.id, 0, 1000)).is_end
        unknown = await subject.compute.read_logs("unknown.0.0", 0, 1000)
        assert (unknown.data, unknown.is_end) == (b"", True)

    async def test_ends_are_hinted_at(self, subject: ComputeSubject) -> None:
        """Without anybody asking."""
        hinted: set[str] = set()

        async def follow() -> None:
            async for instance_id in subject.compute.watch():
                hinted.add(instance_id)

        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        instance = subject.runs()
        await subject.compute.launch(instance)
        await _until(subject.compute, instance.id, lambda seen: seen.phase is Phase.RUNNING)
        hinted.clear()
        await subject.compute.stop(instance.id)
        async with asyncio.timeout(_DEADLINE_SECONDS):
            while instance.id not in hinted:  # noqa: ASYNC110  # filled by the loop above
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    async def test_the_next_server_finds_everything_as_it_was(self, subject: ComputeSubject) -> None:
        """What runs goes on, what has ended keeps exit, times and output; a launch that is tried again adopts."""
        running, ended = subject.runs(), subject.ends(5, "kept\n")
        await subject.compute.launch(running)
        await subject.compute.launch(ended)
        before = await _until_ended(subject.compute, ended.id)
        started = await _until(subject.compute, running.id, lambda seen: seen.phase is Phase.RUNNING)
        compute = subject.reopened()
        await compute.launch(running)
        seen = await compute.observe([running.id, ended.id])
        assert (seen[0].phase, seen[0].started_at, seen[0].pid) == (Phase.RUNNING, started.started_at, started.pid)
        assert (seen[1].exit, seen[1].started_at, seen[1].ended_at) == (before.exit, before.started_at, before.ended_at)
        assert (await compute.read_logs(ended.id, 0, 100)).data == b"kept\n"

    async def test_what_is_known_is_listed(self, subject: ComputeSubject) -> None:
        """What runs and what has ended, until it is removed; also by the next server."""
        running, ended = subject.runs(), subject.ends(0)
        before = datetime.now(UTC) - timedelta(seconds=5)
        for instance in (running, ended):
            await subject.compute.launch(instance)
        await _until_ended(subject.compute, ended.id)
        await _until(subject.compute, running.id, lambda seen: seen.phase is Phase.RUNNING)
        listed = {each.id: each for each in await subject.reopened().list_instances()}
        assert {each: listed[each].phase for each in (running.id, ended.id)} == {
            running.id: Phase.RUNNING,
            ended.id: Phase.EXITED,
        }
        known = listed[running.id]
        assert (known.workload_id, known.project_id, known.role) == (
            running.workload_id,
            running.project_id,
            running.role,
        )
        assert before <= known.launched_at <= datetime.now(UTC) + timedelta(seconds=5)
        await subject.compute.remove(ended.id)
        assert ended.id not in {each.id for each in await subject.compute.list_instances()}

    async def test_ports_are_kept_and_told(self, subject: ComputeSubject) -> None:
        """Each has its own, the same to everybody who asks, and what has none has no network."""
        first, second, without = (replace(subject.runs(), ports=("one", "two")) for _ in range(3))
        without = replace(without, ports=())
        for instance in (first, second, without):
            await subject.compute.launch(instance)
        seen = [
            await _until(subject.compute, each.id, lambda seen: seen.phase is Phase.RUNNING) for each in (first, second)
        ]
        addresses: set[tuple[str, int]] = set()
        for each in seen:
            assert each.network is not None
            assert set(each.network.ports) == {"one", "two"}
            addresses |= {(each.network.host, number) for number in each.network.ports.values()}
        assert len(addresses) == 4
        again = await subject.reopened().observe([first.id, second.id, without.id])
        assert [each.network for each in again] == [seen[0].network, seen[1].network, None]

    async def test_introductions(self, subject: ComputeSubject) -> None:
        """To what runs, twice if need be; to what has ended or never was, it does nothing."""
        running, ended = replace(subject.runs(), ports=("one",)), subject.ends(0)
        for instance in (running, ended):
            await subject.compute.launch(instance)
        await _until_ended(subject.compute, ended.id)
        seen = await _until(subject.compute, running.id, lambda seen: seen.network is not None)
        assert seen.network is not None
        for instance_id in (running.id, running.id, ended.id, "unknown.0.0"):
            await subject.compute.introduce(instance_id, [Peer(0, seen.network)])
        assert (await subject.compute.observe([running.id]))[0].network == seen.network

    async def test_telling(self, subject: ComputeSubject) -> None:
        """What runs has another role from then on, also for another server; to what has ended or never was, it does nothing."""
        running, ended = subject.runs(), subject.ends(0)
        for instance in (running, ended):
            await subject.compute.launch(instance)
        await _until_ended(subject.compute, ended.id)
        await _until(subject.compute, running.id, lambda seen: seen.phase is Phase.RUNNING)
        for instance_id in (running.id, running.id, ended.id, "unknown.0.0"):
            await subject.compute.tell(instance_id, "another", "something else", '{"said": 1}')
        roles = {each.id: each.role for each in await subject.reopened().list_instances()}
        assert roles == {running.id: "another", ended.id: ended.role}

    async def test_capacity(self, subject: ComputeSubject) -> None:
        """A backend that knows its size has one."""
        if isinstance(subject.compute, HasCapacity):
            capacity = await subject.compute.capacity()
            assert capacity.cpus > 0
            assert capacity.memory_bytes > 0
            assert capacity.gpus >= 0


async def _until_ended(compute: Compute, instance_id: str) -> Observation:
    return await _until(compute, instance_id, lambda seen: seen.phase is Phase.EXITED)


async def _until(compute: Compute, instance_id: str, is_true: Callable[[Observation], bool]) -> Observation:
    async with asyncio.timeout(_DEADLINE_SECONDS):
        while not is_true(seen := (await compute.observe([instance_id]))[0]):  # noqa: ASYNC110  # a backend has to be asked
            await asyncio.sleep(0.01)
    return seen
