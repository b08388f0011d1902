"""A place where instances run that is all in memory, for tests of what stands above the compute port.

It keeps the port's contract and, where told to, misbehaves within it: starts slowly, refuses, fails half-way through a launch, answers
late, loses an instance or everything. It counts what was really started, so that a test can prove that nothing was started twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from modelyard.compute.port import (
    Capacity,
    Cause,
    Exit,
    Instance,
    LaunchRefused,
    Listed,
    LogChunk,
    Network,
    Observation,
    Peer,
    Phase,
)
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import RetryLater

_ALIVE = (Phase.STARTING, Phase.RUNNING)


@dataclass(slots=True)
class Script:
    """How one instance behaves.

    Attributes:
        is_slow: stays STARTING until `run` is called.
        refusal: `launch` refuses it with these words.
        launch_failures: for each launch in turn, fail `before` or `after` the instance was really started.
        printed: what it prints as soon as it runs.
        exit_at_once: it ends like this as soon as it runs.
        exit_on_stop: how it ends when it is asked to; None ignores the request (until `finish` is called).
    """

    is_slow: bool = False
    refusal: str | None = None
    launch_failures: deque[str] = field(default_factory=deque[str])
    printed: str = ""
    exit_at_once: Exit | None = None
    exit_on_stop: Exit | None = field(default_factory=lambda: Exit(Cause.STOPPED, "it was stopped", signal=15))


@dataclass(slots=True)
class _Running:
    instance: Instance
    observation: Observation
    launched_at: datetime
    output: bytearray = field(default_factory=bytearray)


class FakeCompute:
    """Runs instances in memory (`Compute`, `HasCapacity` and `KeepsVolumes` of the port).

    Attributes:
        scripts: by instance id; what is not here starts at once and runs until it is told otherwise.
        starts: how often each instance was really started.
        calls: verbs and ids in the order in which they came.
        peers: to whom each instance was introduced.
        told: what each instance was told last.
        insisted: after how many seconds each stop is repeated.
        before: awaited before each verb does anything, with the verb's name and the id; may wait or raise.
        after: the same, after the verb has done its work and before it answers.
    """

    def __init__(self, capacity: Capacity | None = None, clock: Clock = utc_now) -> None:
        self.scripts: dict[str, Script] = {}
        self.starts: Counter[str] = Counter()
        self.calls: list[tuple[str, str]] = []
        self.before: Callable[[str, str], Awaitable[None]] = _do_nothing
        self.after: Callable[[str, str], Awaitable[None]] = _do_nothing
        self._capacity = capacity or Capacity(cpus=64.0, memory_bytes=2**40)
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self.peers: dict[str, Sequence[Peer]] = {}
        self.told: dict[str, str] = {}
        self.insisted: dict[str, float | None] = {}
        self._watchers: set[asyncio.Queue[str]] = set()
        self.volumes: set[str] = set()

    async def launch(self, instance: Instance) -> None:
        """See the port."""
        await self._enter("launch", instance.id)
        script = self.scripts.get(instance.id, Script())
        if script.refusal is not None:
            raise LaunchRefused(script.refusal)
        failure = script.launch_failures.popleft() if script.launch_failures else None
        if failure == "before":
            raise RetryLater("the place is not ready")
        if instance.id not in self._running:
            self._start(instance, script)
        if failure == "after":
            raise RetryLater("the answer got lost")
        await self.after("launch", instance.id)

    async def observe(self, ids: Sequence[str]) -> Sequence[Observation]:
        """See the port."""
        await self._enter("observe", ids[0] if ids else "")
        seen = [self.seen(each) for each in ids]
        await self.after("observe", ids[0] if ids else "")
        return seen

    async def introduce(self, instance_id: str, peers: Sequence[Peer]) -> None:
        """See the port."""
        await self._enter("introduce", instance_id)
        if self.seen(instance_id).phase in _ALIVE:
            self.peers[instance_id] = tuple(peers)
        await self.after("introduce", instance_id)

    async def tell(self, instance_id: str, role: str, title: str, text: str) -> None:
        """See the port."""
        await self._enter("tell", instance_id)
        if self.seen(instance_id).phase in _ALIVE:
            known = self._running[instance_id]
            known.instance = replace(known.instance, role=role, title=title)
            self.told[instance_id] = text
        await self.after("tell", instance_id)

    async def list_instances(self) -> Sequence[Listed]:
        """See the port."""
        await self._enter("list_instances", "")
        return [
            Listed(
                each.instance.id,
                each.instance.workload_id,
                each.instance.project_id,
                each.instance.role,
                each.observation.phase,
                each.launched_at,
            )
            for _, each in sorted(self._running.items())
        ]

    async def stop(self, instance_id: str, *, insist_after_seconds: float | None = None) -> None:
        """See the port."""
        await self._enter("stop", instance_id)
        self.insisted.setdefault(instance_id, insist_after_seconds)
        script = self.scripts.get(instance_id, Script())
        if self.seen(instance_id).phase in _ALIVE and script.exit_on_stop is not None:
            self._end(instance_id, script.exit_on_stop)
        await self.after("stop", instance_id)

    async def remove(self, instance_id: str) -> None:
        """See the port."""
        await self._enter("remove", instance_id)
        if self.seen(instance_id).phase in _ALIVE:
            raise RetryLater(f"{instance_id} still runs")
        self._running.pop(instance_id, None)
        await self.after("remove", instance_id)

    async def remove_volume(self, volume_id: str) -> None:
        """See the port."""
        await self._enter("remove_volume", volume_id)
        if any(volume_id == used.id for each in self.alive_ids for used in self.instance(each).volumes):
            raise RetryLater(f"{volume_id} is in use")
        self.volumes.discard(volume_id)
        await self.after("remove_volume", volume_id)

    async def has_volume(self, volume_id: str) -> bool:
        """See the port."""
        return volume_id in self.volumes

    async def read_logs(self, instance_id: str, offset: int, limit_bytes: int) -> LogChunk:
        """See the port. An unknown instance's output is empty and at its end."""
        await self._enter("read_logs", instance_id)
        known = self._running.get(instance_id)
        if known is None:
            return LogChunk(offset, b"", offset, is_end=True)
        offset = min(offset, len(known.output))
        data = bytes(known.output[offset : offset + limit_bytes])
        following = offset + len(data)
        has_ended = known.observation.phase is Phase.EXITED
        return LogChunk(offset, data, following, is_end=has_ended and following == len(known.output))

    async def watch(self) -> AsyncIterator[str]:
        """See the port."""
        news: asyncio.Queue[str] = asyncio.Queue()
        self._watchers.add(news)
        try:
            while True:
                yield await news.get()
        finally:
            self._watchers.discard(news)

    async def capacity(self) -> Capacity:
        """See the port."""
        return self._capacity

    def seen(self, instance_id: str) -> Observation:
        """What is seen of it now."""
        known = self._running.get(instance_id)
        return Observation(instance_id, Phase.ABSENT) if known is None else known.observation

    def instance(self, instance_id: str) -> Instance:
        """What it was launched with."""
        return self._running[instance_id].instance

    @property
    def alive_ids(self) -> list[str]:
        """Ids of the instances that run."""
        return [each for each, known in self._running.items() if known.observation.phase in _ALIVE]

    def held_memory_bytes(self) -> int:
        """What the limits of all that runs add up to."""
        return sum(self._running[each].instance.limits.memory_bytes for each in self.alive_ids)

    def run(self, instance_id: str) -> None:
        """A slow instance has started at last."""
        self._see(instance_id, phase=Phase.RUNNING, started_at=self._clock())

    def report(self, instance_id: str, report: Mapping[str, Any]) -> None:
        """The process says this of itself."""
        self._see(instance_id, report=report)

    def print(self, instance_id: str, text: str) -> None:
        """The process prints this."""
        self._running[instance_id].output += text.encode()

    def finish(self, instance_id: str, code: int = 0) -> None:
        """It ends by itself with this exit code."""
        self._end(instance_id, Exit(Cause.EXITED, f"it ended with exit code {code}", code=code))

    def kill(self, instance_id: str, cause: Cause, message: str = "it was killed") -> None:
        """It ends for this cause: killed for memory, time limit …"""
        self._end(instance_id, Exit(cause, message, signal=9))

    def lose(self, instance_id: str) -> None:
        """The machine went down: the backend remembers it and knows that it is gone."""
        self._end(instance_id, Exit(Cause.LOST, "the machine went down"))

    def vanish(self, instance_id: str) -> None:
        """The backend forgets it: from here on it is ABSENT."""
        del self._running[instance_id]
        self._tell(instance_id)

    def lose_everything(self) -> None:
        """The backend forgets all that it ever knew."""
        for instance_id in list(self._running):
            self.vanish(instance_id)

    async def _enter(self, verb: str, instance_id: str) -> None:
        self.calls.append((verb, instance_id))
        await self.before(verb, instance_id)

    def _start(self, instance: Instance, script: Script) -> None:
        self.starts[instance.id] += 1
        self.volumes.update(volume.id for volume in instance.volumes)
        sockets = {name: f"/nowhere/{instance.id}/{name}.sock" for name in instance.sockets}
        numbers = {name: 20_000 + self.starts.total() * 10 + place for place, name in enumerate(instance.ports)}
        network = Network(f"{instance.id}.test", numbers) if instance.ports else None
        observation = Observation(instance.id, Phase.STARTING, sockets=sockets, network=network)
        self._running[instance.id] = _Running(instance, observation, self._clock())
        self._tell(instance.id)
        if not script.is_slow:
            self.run(instance.id)
        self.print(instance.id, script.printed)
        if script.exit_at_once is not None:
            self._end(instance.id, script.exit_at_once)

    def _end(self, instance_id: str, how: Exit) -> None:
        started_at = self.seen(instance_id).started_at or self._clock()
        self._see(instance_id, phase=Phase.EXITED, exit=how, started_at=started_at, ended_at=self._clock())

    def _see(self, instance_id: str, **changes: Any) -> None:
        known = self._running[instance_id]
        if known.observation.phase is Phase.EXITED:
            return
        known.observation = replace(known.observation, **changes)
        self._tell(instance_id)

    def _tell(self, instance_id: str) -> None:
        for news in self._watchers:
            news.put_nowait(instance_id)


async def _do_nothing(_verb: str, _instance_id: str) -> None:
    """No misbehaviour."""
