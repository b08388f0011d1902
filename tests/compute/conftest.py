"""What the tests of the local backend share: a backend on a directory of its own, and an environment that is a bare interpreter."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local.backend import LocalCompute
from modelyard.compute.backends.local.environments import FACTS_FILE, EnvironmentFacts, EnvironmentStore
from modelyard.compute.backends.local.limits import group_name
from modelyard.compute.backends.local.settings import LocalComputeSettings
from modelyard.compute.port import Build, Command, Environment, Instance, Limits, Observation, Phase

PLAIN = Environment("bare Python", f"{sys.version_info.major}.{sys.version_info.minor}", ())
_COUNTER = itertools.count()


class World:
    """One backend, and short words for what tests do with it."""

    def __init__(self, compute: LocalCompute, root: Path) -> None:
        self.compute = compute
        self.root = root

    def instance(self, task: Command | Build | str, **fields: Any) -> Instance:
        """An instance that runs this command, or this text with /bin/sh."""
        command = Command(("/bin/sh", "-c", task)) if isinstance(task, str) else task
        number = next(_COUNTER)
        values: dict[str, Any] = {
            "id": f"w{number}.0.0",
            "workload_id": f"w{number}",
            "index": 0,
            "attempt": 0,
            "project_id": "project-a",
            "role": "training",
            "task": command,
            "limits": Limits(cpus=1.0, memory_bytes=256 << 20, pids=256),
            "grace_seconds": 5.0,
        }
        return Instance(**(values | fields))

    def python(self, code: str, **fields: Any) -> Instance:
        """An instance that runs this program in the environment's interpreter."""
        return self.instance(Command(("{python}", "-c", code)), **({"environment": PLAIN} | fields))

    async def run(self, task: Instance | str, **fields: Any) -> tuple[Observation, str]:
        """Launch it, wait for its end; answers the last observation and the output."""
        instance = task if isinstance(task, Instance) else self.instance(task, **fields)
        await self.compute.launch(instance)
        seen = await self.until(instance.id, Phase.EXITED)
        return seen, await self.output(instance.id)

    async def until(self, instance_id: str, phase: Phase, seconds: float = 60.0) -> Observation:
        """Wait until it is seen in this phase."""
        return await self.when(instance_id, lambda seen: seen.phase is phase, seconds)

    async def when(
        self, instance_id: str, is_true: Callable[[Observation], bool], seconds: float = 60.0
    ) -> Observation:
        """Wait until this is true of what is seen."""
        deadline = time.monotonic() + seconds
        while True:
            (seen,) = await self.compute.observe([instance_id])
            if is_true(seen):
                return seen
            if time.monotonic() > deadline:
                raise AssertionError(f"did not come about: {seen}; output: {await self.output(instance_id)}")
            await asyncio.sleep(0.01)

    async def until_printed(self, instance_id: str, text: str, seconds: float = 60.0) -> str:
        """Wait until this text is in the output; answers all of the output."""
        deadline = time.monotonic() + seconds
        while text not in (printed := await self.output(instance_id)):
            if time.monotonic() > deadline:
                raise AssertionError(f"'{text}' was not printed, but: {printed}")
            await asyncio.sleep(0.01)
        return printed

    async def output(self, instance_id: str) -> str:
        """All of its output."""
        chunk = await self.compute.read_logs(instance_id, 0, 1 << 26)
        return chunk.data.decode(errors="replace")

    def directory(self, instance: Instance) -> Path:
        """Where the backend keeps it."""
        return self.root / "compute" / "instances" / instance.id


MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def plain_environments(tmp_path_factory: pytest.TempPathFactory) -> EnvironmentStore:
    """A store with one environment: this interpreter, without packages."""
    store = EnvironmentStore(tmp_path_factory.mktemp("environments"))
    place = store.path(PLAIN)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    facts = EnvironmentFacts(
        digest=PLAIN.digest,
        name=PLAIN.name,
        python=PLAIN.python,
        requirements=(),
        core_type="CPU",
        python_version=".".join(map(str, sys.version_info[:3])),
        executable=os.path.realpath(sys.executable),
        base_prefix=sys.base_prefix,
        library_directories=(),
        site_packages=f"lib/python{PLAIN.python}/site-packages",
        packages=(),
        installer="uv",
        size_bytes=0,
        built_at="2026-01-01T00:00:00+00:00",
        build_seconds=0.0,
    )
    (place / FACTS_FILE).write_text(facts.to_json())
    return store


@pytest.fixture
async def make_world(tmp_path: Path, plain_environments: EnvironmentStore) -> AsyncIterator[MakeWorld]:
    """`make_world(isolation=…)` is a backend with these settings; nothing that it started outlives the test."""
    worlds: list[World] = []

    def make(**settings: Any) -> World:
        compute = LocalCompute(tmp_path / "compute", plain_environments, LocalComputeSettings(**settings))
        worlds.append(World(compute, tmp_path))
        return worlds[-1]

    yield make
    for world in worlds:
        await world.compute.stop_all(0.0)
        left = [each for each in await world.compute.list_instances() if each.observation.phase is not Phase.EXITED]
        world.compute.close()
        assert left == []
    name = group_name(tmp_path / "compute")
    assert [*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")] == []


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A backend with the usual settings."""
    return make_world()
