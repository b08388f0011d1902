"""Anybody may be killed at any moment: the server, the supervisor, the machine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard.compute.backends.local import processes, records
from modelyard.compute.port import Cause, Mount, Phase

pytestmark = pytest.mark.slow

_SERVER = """
import asyncio, os, pickle, sys
from pathlib import Path
from modelyard.compute.backends.local import launching, planning, records, backend
from modelyard.compute.backends.local.environments import EnvironmentStore

root, environments, point, instance = pickle.load(sys.stdin.buffer)

def dying(module, name, is_after):
    inner = getattr(module, name)
    def outer(*args, **kwargs):
        if is_after:
            inner(*args, **kwargs)
        os.kill(os.getpid(), 9)
    setattr(module, name, outer)

async def main():
    compute = backend.LocalCompute(root, EnvironmentStore(environments))
    await compute.prepare()
    if point == "before the plan": dying(planning, "make_plan", False)
    if point == "after the facts": dying(launching, "write_facts", True)
    if point == "after the plan": dying(records, "save_plan", True)
    if point == "while it starts":
        dying(launching.socket, "send_fds", True)
    if point == "after the start": dying(launching, "start", True)
    await compute.launch(instance)
    if point == "while it runs": os.kill(os.getpid(), 9)
    print("launched", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
_POINTS = (
    "before the plan",
    "after the facts",
    "after the plan",
    "while it starts",
    "after the start",
    "while it runs",
)


@pytest.mark.parametrize("point", _POINTS)
async def test_the_server_is_killed_while_it_launches(world: Any, tmp_path: Path, point: str) -> None:
    proof = tmp_path / "proof"
    instance = world.instance(
        "echo began >> /mnt/proof/began; echo up; sleep 1; echo done; exit 5", mounts=(Mount(str(proof), "/mnt/proof"),)
    )
    assert _launch_in_a_server(world, point, instance) == -9
    await world.compute.launch(instance)
    seen = await world.until(instance.id, Phase.EXITED)
    assert (seen.exit.cause, seen.exit.code) == (Cause.EXITED, 5)
    assert seen.started_at < seen.ended_at
    assert await world.output(instance.id) == "up\ndone\n"
    assert (proof / "began").read_text() == "began\n"


async def test_a_stop_reaches_what_another_server_started(world: Any) -> None:
    instance = world.instance("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    assert _launch_in_a_server(world, "while it runs", instance) == -9
    await world.until_printed(instance.id, "up")
    await world.compute.stop(instance.id)
    seen = await world.until(instance.id, Phase.EXITED)
    assert (seen.exit.cause, seen.exit.code) == (Cause.STOPPED, 0)
    assert await world.output(instance.id) == "up\nbye\n"


@pytest.mark.parametrize(
    "settings", [{}, {"has_cgroups": False}, {"isolation": "NONE"}, {"isolation": "NONE", "has_cgroups": False}]
)
async def test_the_supervisor_is_killed(make_world: Any, settings: dict[str, Any]) -> None:
    world = make_world(**settings)
    code = (
        "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n"
        "print('mark', 'lost' + 'tree', flush=True)\nwhile True: time.sleep(1)\n"
    )
    instance = world.python(code)
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "losttree\nmark losttree")
    assert len(_running(instance.id, world)) >= 2
    os.kill(_supervisor(world, instance), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _running(instance.id, world) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert _running(instance.id, world) == []
    seen = await world.until(instance.id, Phase.EXITED)
    assert seen.exit.cause is Cause.LOST
    assert seen.exit.message == "Its supervisor was killed, so it was ended."
    assert seen.ended_at is not None
    chunk = await world.compute.read_logs(instance.id, 0, 1 << 20)
    assert chunk.is_end
    await world.compute.launch(instance)
    (again,) = await world.compute.observe([instance.id])
    assert again.exit.cause is Cause.LOST
    await world.compute.remove(instance.id)
    assert not world.directory(instance).exists()


async def test_supervisor_and_guardian_are_killed_together(make_world: Any) -> None:
    world = make_world(isolation="NONE", has_cgroups=False)
    instance = world.instance("trap '' TERM; setsid sleep 1000 & echo up; sleep 1000")
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    supervisor = _supervisor(world, instance)
    guardian = processes.children_of(supervisor)[0]
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(guardian, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    seen = await world.until(instance.id, Phase.EXITED)
    assert seen.exit.cause is Cause.LOST
    assert _running(instance.id, world) == []


async def test_the_machine_was_restarted(world: Any) -> None:
    instance = world.instance("echo up; sleep 1000")
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    os.kill(_supervisor(world, instance), signal.SIGKILL)
    record = world.directory(instance) / records.SUPERVISOR
    # As after a restart: the pid belongs to somebody else (to this very process), at another time, in another boot.
    record.write_text(
        json.dumps({"pid": os.getpid(), "start_ticks": processes.start_ticks(os.getpid()), "boot_id": "before"})
    )
    seen = await world.until(instance.id, Phase.EXITED)
    assert seen.exit.cause is Cause.LOST
    assert seen.exit.message == "The machine was restarted while it ran."


async def test_a_pid_that_came_back_is_somebody_else(world: Any) -> None:
    instance = world.instance("echo up; sleep 1000")
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    os.kill(_supervisor(world, instance), signal.SIGKILL)
    record = world.directory(instance) / records.SUPERVISOR
    record.write_text(json.dumps({"pid": os.getpid(), "start_ticks": 1, "boot_id": processes.boot_id()}))
    seen = await world.until(instance.id, Phase.EXITED)
    assert seen.exit.cause is Cause.LOST


async def test_an_end_of_the_system_is_a_request_to_stop(world: Any) -> None:
    instance = world.instance("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    os.kill(_supervisor(world, instance), signal.SIGTERM)
    seen = await world.until(instance.id, Phase.EXITED)
    assert seen.exit.cause is Cause.STOPPED
    assert (await world.output(instance.id)).endswith("bye\n")


async def test_the_home_is_deleted_under_it(world: Any) -> None:
    instance = world.instance("trap '' TERM; echo up; while :; do sleep 1; done")
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    supervisor = _supervisor(world, instance)
    (seen,) = await world.compute.observe([instance.id])
    shutil.rmtree(world.directory(instance))
    deadline = time.monotonic() + 20
    while processes.start_ticks(supervisor) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert processes.start_ticks(supervisor) is None
    assert processes.start_ticks(seen.pid) is None


async def test_broken_records_are_not_fatal(world: Any) -> None:
    instance = world.instance("exit 0")
    await world.compute.launch(instance)
    await world.until(instance.id, Phase.EXITED)
    other = world.directory(instance).parent / "half.0.0"
    other.mkdir()
    (other / records.INSTANCE).write_text("{")
    (other / records.SUPERVISOR).write_text("")
    (seen,) = await world.compute.observe(["half.0.0"])
    assert seen.phase is Phase.ABSENT
    assert [each.id for each in await world.compute.list_instances()] == [instance.id]
    await world.compute.remove("half.0.0")
    assert not other.exists()


def _launch_in_a_server(world: Any, point: str, instance: Any) -> int:
    import pickle

    environments = world.compute._environments.root
    request = pickle.dumps((world.root / "compute", environments, point, instance))
    source = str(Path(modelyard.__file__).parent.parent)
    server = subprocess.run(
        [sys.executable, "-c", _SERVER], input=request, env={**os.environ, "PYTHONPATH": source}, timeout=60
    )
    return server.returncode


def _supervisor(world: Any, instance: Any) -> int:
    return json.loads((world.directory(instance) / records.SUPERVISOR).read_text())["pid"]


def _running(instance_id: str, world: Any) -> list[int]:
    """Processes of this instance, told by what bubblewrap or the plain process was given."""
    marks = (f"MODELYARD_ROOT={world.root}/compute/instances/{instance_id}/root".encode(), b"HOME=/root")
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        is_plain = marks[0] in environment
        is_boxed = marks[1] in environment and b"losttree" in words.replace(b"'lost' + 'tree'", b"losttree")
        if is_plain or is_boxed:
            found.append(int(entry.name))
    return found
