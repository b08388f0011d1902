"""Limits that hold: memory, processes, processor time, storage; by control groups of any version and without any."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local.capacity import measure, total_memory_bytes
from modelyard.compute.backends.local.cgroups import Cgroups
from modelyard.compute.backends.local.limits import (
    GroupBases,
    Hierarchies,
    Place,
    find_bases,
    find_hierarchies,
    remove_bases,
)
from modelyard.compute.backends.local.settings import LocalComputeSettings
from modelyard.compute.backends.local.usage import StorageGauge
from modelyard.compute.backends.local.volumes import can_mount_images
from modelyard.compute.port import Cause, Limits, Phase

pytestmark = pytest.mark.slow

_V2_MOUNTS = "31 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
_EAT = "import time; eaten = []\nwhile True:\n    eaten.append(bytearray(b'x' * (4 << 20))); time.sleep(0.002)"


async def test_out_of_memory_is_told(world: Any) -> None:
    seen, _ = await world.run(world.python(_EAT, limits=Limits(1.0, 64 << 20)))
    assert seen.exit.cause is Cause.OUT_OF_MEMORY
    assert seen.exit.message == "Killed for memory: it needed more than its limit of 64 MiB."
    assert seen.memory_bytes <= 64 << 20


async def test_a_child_killed_for_memory_fails_the_whole(world: Any) -> None:
    code = f"import os\npid = os.fork()\nif not pid:\n    exec({_EAT!r})\nos.waitpid(pid, 0)\nraise SystemExit(1)"
    seen, _ = await world.run(world.python(code, limits=Limits(1.0, 64 << 20)))
    assert (seen.exit.cause, seen.exit.code) == (Cause.OUT_OF_MEMORY, 1)


async def test_out_of_memory_without_groups(make_world: Any) -> None:
    world = make_world(has_cgroups=False)
    _, notes = await world.compute.prepare()
    assert any("Memory is watched, not limited" in note for note in notes)
    seen, _ = await world.run(world.python(_EAT.replace("0.002", "0.02"), limits=Limits(1.0, 64 << 20)))
    assert seen.exit.cause is Cause.OUT_OF_MEMORY
    assert any("Memory is watched" in note for note in seen.notes)


@pytest.mark.parametrize("settings", [{}, {"has_cgroups": False}, {"isolation": "NONE"}])
async def test_a_fork_bomb_is_held_and_ended(make_world: Any, settings: dict[str, Any]) -> None:
    if settings.get("isolation") and not _has_group("pids"):
        settings = {}  # Nothing else holds a plain process here: the machine of the tests would go down.
    world = make_world(**settings)
    code = (
        "import os, time\nprint('up', flush=True)\n"
        "while True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(0.01)\n"
    )
    instance = world.python(code, limits=Limits(1.0, 512 << 20, pids=60), grace_seconds=0.1)
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    time.sleep(0.5)
    await world.compute.stop(instance.id)
    seen = await world.until(instance.id, Phase.EXITED)
    assert seen.exit.cause is Cause.STOPPED
    assert not _running_with(b"while True:\n    try:\n        os.fork()")


async def test_processor_time_is_limited(world: Any) -> None:
    if not _has_group("cpu"):
        return
    code = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    _, printed = await world.run(world.python(code, limits=Limits(0.25, 256 << 20)))
    assert float(printed) < 0.8


async def test_storage_is_watched(make_world: Any) -> None:
    world = make_world(storage_interval_seconds=0.2)
    limits = Limits(1.0, 256 << 20, storage_bytes=2 << 20)
    seen, _ = await world.run("head -c 4000000 /dev/zero > /workspace/big; exec sleep 60", limits=limits)
    assert seen.exit.cause is Cause.OUT_OF_STORAGE
    assert seen.exit.message.startswith(
        "Out of space: its files took more than its data storage of 2 MiB. Ask for a larger"
    )


def test_storage_is_looked_at_as_soon_as_enough_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [10_000]

    class Answer:
        f_frsize = 1

        @property
        def f_bfree(self) -> int:
            return free[0]

    monkeypatch.setattr("modelyard.compute.backends.local.usage.os.statvfs", lambda path: Answer())
    gauge = StorageGauge([str(tmp_path)], 5000, 1000.0)
    began = time.monotonic()
    assert not gauge.is_due(began + 1)
    free[0] = 6000  # 4000 bytes have gone: it can't be over its limit
    assert not gauge.is_due(began + 2)
    free[0] = 4000
    assert not gauge.is_due(began + 2.1)  # asked too soon after the last time
    assert gauge.is_due(began + 3)
    free[0] = 10_000
    assert not gauge.is_due(began + 4)
    assert gauge.is_due(began + 1001)


@pytest.mark.slow
async def test_storage_is_held_to_its_size_by_its_file_system(make_world: Any) -> None:
    if can_mount_images(make_world().root) is not None:
        return  # this machine only looks: the tests above
    world = make_world()
    limits = Limits(1.0, 256 << 20, storage_bytes=100 << 20)
    script = "df -m /workspace | tail -1; id -u; touch /workspace/x; head -c 150000000 /dev/zero > /workspace/big; echo ended $?"
    seen, printed = await world.run(script, limits=limits)
    assert "No space left on device" in printed
    assert "ended 1" in printed
    assert seen.exit.cause is Cause.EXITED
    assert int(printed.split()[1]) <= 100
    names = [path.name for path in world.root.rglob("workspace.image")]
    deadline = time.monotonic() + 20
    while names and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        names = [path.name for path in world.root.rglob("workspace.image")]
    assert names == []


async def test_little_storage_is_left_alone(make_world: Any) -> None:
    world = make_world(storage_interval_seconds=0.05)
    limits = Limits(1.0, 256 << 20, storage_bytes=2 << 20)
    seen, _ = await world.run("echo x > /workspace/small; sleep 0.5", limits=limits)
    assert (seen.exit.cause, seen.exit.code) == (Cause.EXITED, 0)


def test_reads_version_2() -> None:
    found = find_hierarchies(_V2_MOUNTS, "0::/\n")
    assert found.v1 == {}
    assert found.v2 == Place("/sys/fs/cgroup", "/sys/fs/cgroup")


def test_reads_version_1_and_hybrid() -> None:
    mounts = (
        "35 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "36 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "42 31 0:39 / /data rw - ext4 /dev/vda rw\n"
    )
    found = find_hierarchies(mounts, "4:memory:/\n3:cpu,cpuacct:/\n0::/\n")
    assert set(found.v1) == {"memory", "cpu", "cpuacct"}
    assert found.v1["cpu"].top == "/sys/fs/cgroup/cpu,cpuacct"
    assert found.v2 is not None


def test_the_platforms_own_limits_count(tmp_path: Path) -> None:
    top = tmp_path / "memory"
    own = top / "outer" / "inner"
    own.mkdir(parents=True)
    for directory, limit in ((top, 1 << 62), (top / "outer", 3 << 30), (own, 1 << 62)):
        (directory / "memory.limit_in_bytes").write_text(f"{limit}\n")
    cpu = tmp_path / "cpu"
    cpu.mkdir()
    (cpu / "cpu.cfs_quota_us").write_text("150000\n")
    (cpu / "cpu.cfs_period_us").write_text("100000\n")
    hierarchies = Hierarchies({"memory": Place(str(top), str(own)), "cpu": Place(str(cpu), str(cpu))}, None)
    capacity = measure(hierarchies, LocalComputeSettings(memory_reserve_bytes=1 << 30, cpu_reserve=0.5))
    assert capacity.memory_bytes == min(2 << 30, total_memory_bytes() - (1 << 30))
    assert capacity.cpus == min(1.0, len(os.sched_getaffinity(0)) - 0.5)


def test_version_2_limits_are_read(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    hierarchies = Hierarchies({}, Place(str(tmp_path), str(tmp_path)))
    assert hierarchies.memory_limit_bytes() is None
    assert hierarchies.cpu_limit() is None
    (tmp_path / "memory.max").write_text("1073741824\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert hierarchies.memory_limit_bytes() == 1 << 30
    assert hierarchies.cpu_limit() == 0.5


def test_version_2_files_of_an_instance(tmp_path: Path) -> None:
    group = tmp_path / "one"
    group.mkdir()
    for file in ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max"):
        (group / file).touch()
    groups = Cgroups({}, str(group), ("memory", "cpu", "pids"))
    groups.make(0.5, 1 << 30, 100)
    written = {
        file: (group / file).read_text()
        for file in ("memory.max", "memory.swap.max", "memory.oom.group", "cpu.max", "pids.max")
    }
    assert written == {
        "memory.max": "1073741824",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "50000 100000",
        "pids.max": "100",
    }
    groups.make(0.5, 1 << 30, 100, ends_as_one=False)
    assert (group / "memory.oom.group").read_text() == "0"
    (group / "memory.current").write_text("5000\n")
    (group / "memory.peak").write_text("9000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 2000\n")
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 3\n")
    (group / "cpu.stat").write_text("usage_usec 2500000\n")
    assert (groups.memory_bytes(), groups.peak_memory_bytes()) == (3000, 9000)
    assert (groups.out_of_memory_count(), groups.cpu_seconds()) == (3, 2.5)


async def test_a_version_2_group_ends_its_members() -> None:
    place = find_hierarchies().v2
    if place is None or os.geteuid() != 0:
        return
    groups = Cgroups({}, f"{place.top}/modelyard-tests1", ())
    groups.make(1.0, 1 << 30, 100)
    pid = os.fork()
    if pid == 0:
        groups.join()
        os.fork()
        time.sleep(1000)
        os._exit(0)
    deadline = time.monotonic() + 10
    while len(groups.members()) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert pid in groups.members()
    assert groups.kill()
    os.waitpid(pid, 0)
    assert groups.end(5.0)
    assert not Path(f"{place.top}/modelyard-tests1").exists()


def test_no_groups_at_all() -> None:
    groups = GroupBases().of("x")
    assert not groups
    assert (groups.memory_bytes(), groups.peak_memory_bytes(), groups.cpu_seconds()) == (None, None, None)
    assert len(GroupBases().notes()) == 3


def _has_group(controller: str) -> bool:
    bases = find_bases(find_hierarchies(), "modelyard-tests0")
    assert remove_bases(bases.directories)
    return bases.of("x").limits(controller)


def _running_with(code: bytes) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(code in word and word.startswith(b"import os, time") for word in words):
                found.append(int(entry.name))
    return found
