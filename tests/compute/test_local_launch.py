"""The port's verbs on the local backend, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local import launching
from modelyard.compute.port import (
    CACHE,
    LIBRARY,
    ROOT,
    RUN,
    WORKSPACE,
    Cause,
    Command,
    Environment,
    LaunchRefused,
    Limits,
    Mount,
    Phase,
)
from modelyard.kit.errors import RetryLater

pytestmark = pytest.mark.slow


async def test_runs_a_command_and_records_its_end(world: Any) -> None:
    seen, printed = await world.run("echo out; echo err >&2; exit 3")
    assert seen.exit.cause is Cause.EXITED
    assert (seen.exit.code, seen.exit.signal) == (3, None)
    assert seen.exit.message == "Ended with exit code 3."
    assert printed == "out\nerr\n"
    assert seen.started_at <= seen.ended_at
    assert seen.cpu_seconds >= 0
    assert seen.memory_bytes > 0


async def test_the_environment_is_what_the_command_says_and_little_more(world: Any) -> None:
    command = Command(("/usr/bin/env",), {"EM_HP_RATE": "0.1", "LANG": "ko_KR.UTF-8", "QUOTED": "a b\n'c\""})
    seen, printed = await world.run(world.instance(command))
    assert seen.exit.code == 0
    assert "EM_HP_RATE=0.1\n" in printed
    assert "LANG=ko_KR.UTF-8\n" in printed
    assert "QUOTED=a b\n'c\"\n" in printed
    assert "HOME=/root\n" in printed
    assert "PYTHONPATH=/opt/modelyard/lib\n" in printed
    assert "PYTHONDONTWRITEBYTECODE" not in printed


async def test_the_interpreter_and_the_parts_that_run_inside(world: Any) -> None:
    code = (
        "import sys, modelyard.runner, modelyard.serving; print(sys.executable, sys.prefix, modelyard.runner.__file__)"
    )
    seen, printed = await world.run(world.python(code))
    assert seen.exit.code == 0, printed
    assert printed == "/opt/environment/bin/python /opt/environment /opt/modelyard/lib/modelyard/runner/__init__.py\n"


async def test_files_and_placeholders(world: Any) -> None:
    command = Command(
        ("/bin/sh", "-c", f'cat {RUN}/plan.json; cat {RUN}/deep/er.txt; stat -c %a {RUN}/plan.json; echo "$W"; pwd'),
        {"W": f"{WORKSPACE}:{CACHE}:{LIBRARY}:{ROOT}."},
        {"plan.json": f'{{"workspace": "{WORKSPACE}"}}\n', "deep/er.txt": "x\n"},
    )
    _, printed = await world.run(world.instance(command))
    inside = "/workspace:/var/cache/modelyard:/opt/modelyard/lib:.\n"
    assert printed == f'{{"workspace": "/workspace"}}\nx\n600\n{inside}/workspace\n'


async def test_launching_twice_adopts(world: Any) -> None:
    instance = world.instance("echo once; sleep 0.3")
    await asyncio.gather(*(world.compute.launch(instance) for _ in range(6)))
    await world.compute.launch(instance)
    await world.until(instance.id, Phase.EXITED)
    await world.compute.launch(instance)
    assert await world.output(instance.id) == "once\n"


async def test_unknown_instances(world: Any) -> None:
    (seen, other) = await world.compute.observe(["nobody.0.0", "../../etc"])
    assert (seen.phase, other.phase) == (Phase.ABSENT, Phase.ABSENT)
    await world.compute.stop("nobody.0.0")
    await world.compute.remove("nobody.0.0")
    chunk = await world.compute.read_logs("nobody.0.0", 0, 100)
    assert (chunk.data, chunk.is_end) == (b"", True)


async def test_stop_gives_the_main_process_its_grace(world: Any) -> None:
    instance = world.instance(
        "trap 'echo saving; sleep 0.2; echo saved; exit 7' TERM; echo up; while :; do sleep 0.05; done"
    )
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    await world.compute.stop(instance.id)
    await world.compute.stop(instance.id)
    seen = await world.until(instance.id, Phase.EXITED)
    assert (seen.exit.cause, seen.exit.code) == (Cause.STOPPED, 7)
    assert seen.exit.message == "Stopped on request."
    assert (await world.output(instance.id)).endswith("saving\nsaved\n")
    await world.compute.stop(instance.id)


@pytest.mark.parametrize("has_cgroups", [True, False])
async def test_a_tree_that_ignores_the_request_is_killed(make_world: Any, has_cgroups: bool) -> None:
    world = make_world(has_cgroups=has_cgroups)
    code = (
        "import os, signal, time\n"
        "signal.signal(15, signal.SIG_IGN)\n"
        "for _ in range(5):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n"
        "        os.setsid()\n"
        "        while True: time.sleep(1)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    instance = world.python(code, grace_seconds=0.3)
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    started = time.monotonic()
    await world.compute.stop(instance.id)
    seen = await world.until(instance.id, Phase.EXITED)
    assert seen.exit.cause is Cause.STOPPED
    assert seen.exit.signal == 9
    assert "did not end within 0.3 s and was killed" in seen.exit.message
    assert 0.25 < time.monotonic() - started < 10


async def test_the_time_limit_ends_it(world: Any) -> None:
    seen, printed = await world.run("trap 'echo told; exit 0' TERM; while :; do sleep 0.05; done", timeout_seconds=0.5)
    assert seen.exit.cause is Cause.TIME_LIMIT
    assert seen.exit.message == "Stopped at its time limit of 0.5 s."
    assert printed == "told\n"


async def test_signals_are_told(world: Any) -> None:
    seen, _ = await world.run("kill -SEGV $$")
    assert (seen.exit.cause, seen.exit.code, seen.exit.signal) == (Cause.SIGNAL, None, 11)
    assert seen.exit.message == "Killed by signal 11 (SIGSEGV)."


async def test_a_missing_program_is_a_failed_launch(world: Any) -> None:
    seen, printed = await world.run(world.instance(Command(("/no/such/program",))))
    assert seen.exit.cause is Cause.LAUNCH_FAILED
    assert "/no/such/program" in seen.exit.message
    assert seen.exit.message in printed


async def test_remove_only_after_the_end(world: Any) -> None:
    instance = world.instance("echo up; sleep 60")
    await world.compute.launch(instance)
    await world.until(instance.id, Phase.RUNNING)
    with pytest.raises(RetryLater):
        await world.compute.remove(instance.id)
    await world.compute.stop(instance.id)
    await world.until(instance.id, Phase.EXITED)
    await world.compute.remove(instance.id)
    await world.compute.remove(instance.id)
    assert not world.directory(instance).exists()
    assert list((world.root / "compute" / "trash").iterdir()) == []
    assert list((world.root / "compute" / "run").iterdir()) == []
    (seen,) = await world.compute.observe([instance.id])
    assert seen.phase is Phase.ABSENT


async def test_a_socket_can_be_reached_from_outside(world: Any) -> None:
    code = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('/run/modelyard/http.sock'); s.listen(); "
        "print('up', flush=True); s.accept()[0].sendall(b'hello')"
    )
    instance = world.python(code, sockets=("http",))
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    (seen,) = await world.compute.observe([instance.id])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(seen.sockets["http"])
        assert client.recv(10) == b"hello"


async def test_an_observation_of_what_runs(world: Any) -> None:
    instance = world.python("import time; block = bytearray(30 << 20); print('up', flush=True); time.sleep(60)")
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    (seen,) = await world.compute.observe([instance.id])
    assert seen.phase is Phase.RUNNING
    assert seen.memory_bytes > 25 << 20
    assert seen.cpu_seconds > 0
    assert Path(f"/proc/{seen.pid}/cmdline").read_bytes().startswith(b"/opt/environment/bin/python\0-c\0")
    listed = await world.compute.list_instances()
    assert [(each.id, each.role, each.project_id) for each in listed] == [(instance.id, "training", "project-a")]
    assert listed[0].supervisor_pid is not None


async def test_hints_come_for_start_report_and_end(world: Any) -> None:
    heard: list[str] = []
    await world.compute.prepare()

    async def listen() -> None:
        async for instance_id in world.compute.watch():
            heard.append(instance_id)

    task = asyncio.create_task(listen())
    try:
        instance = world.instance(
            'echo \'{"step": "one", "progress": 0.5}\' > /run/modelyard/x && mv /run/modelyard/x /run/modelyard/report.json; sleep 60'
        )
        await world.compute.launch(instance)
        seen = await world.when(instance.id, lambda seen: seen.report.get("step") == "one")
        assert seen.report["progress"] == 0.5
        before = len(heard)
        assert before >= 1
        await world.compute.stop(instance.id)
        await world.until(instance.id, Phase.EXITED)
        deadline = time.monotonic() + 5
        while len(heard) == before and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert set(heard) == {instance.id}
        assert len(heard) > before
    finally:
        task.cancel()


async def test_stop_all_leaves_nobody(world: Any) -> None:
    instances = [world.instance("trap '' TERM; while :; do sleep 1; done") for _ in range(3)]
    for instance in instances:
        await world.compute.launch(instance)
    assert await world.compute.stop_all(0.3) == 3
    seen = await world.compute.observe([instance.id for instance in instances])
    assert {each.phase for each in seen} == {Phase.EXITED}
    assert {each.exit.cause for each in seen} == {Cause.STOPPED}


async def test_what_can_never_run_is_refused_with_all_faults(world: Any) -> None:
    limits = Limits(cpus=0, memory_bytes=1)
    instance = world.instance("true", limits=limits, project_id="Äh/..", sockets=("../x",))
    with pytest.raises(LaunchRefused) as refused:
        await world.compute.launch(instance)
    for part in ("limits must be greater than zero", "project_id 'äh/..'", "'../x'"):
        assert part in str(refused.value).lower()


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "../up"},
        {"id": "a" * 101},
        {"id": ".hidden"},
        {"mounts": (Mount("relative", "/mnt/x"),)},
        {"mounts": (Mount("/", "/mnt/x"),)},
        {"mounts": (Mount("/srv/../etc", "/mnt/x"),)},
        {"mounts": (Mount("/srv", "/usr/lib"),)},
        {"mounts": (Mount("/srv", "/"),)},
        {"mounts": (Mount("/srv", "/mnt/../etc"),)},
        {"task": Command(())},
        {"task": Command(("{python}",))},
        {"task": Command(("/bin/true",), {"A=B": "x"})},
        {"task": Command(("/bin/true",), {"A": "x\0y"})},
        {"task": Command(("/bin/true",), {}, {"../escape": "x"})},
        {"task": Command(("/bin/true",), {}, {"/etc/passwd": "x"})},
        {"limits": Limits(1, 1 << 30, gpus=99)},
    ],
)
async def test_refused(world: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(LaunchRefused):
        await world.compute.launch(replace(world.instance("true"), **fields))


async def test_an_environment_that_is_not_built_is_for_later(world: Any) -> None:
    with pytest.raises(RetryLater, match="not built"):
        await world.compute.launch(world.python("pass", environment=Environment("other", "3.11", ("x==1",))))


async def test_fifty_launches_at_once(world: Any) -> None:
    await world.compute.prepare()
    instances = [world.instance(f"echo number {number}; sleep 1") for number in range(50)]
    started = time.monotonic()
    await asyncio.gather(*(world.compute.launch(instance) for instance in instances))
    launched = time.monotonic() - started
    for number, instance in enumerate(instances):
        seen = await world.until(instance.id, Phase.EXITED)
        assert seen.exit.code == 0
        assert await world.output(instance.id) == f"number {number}\n"
    assert launched < 30
    await asyncio.gather(*(world.compute.remove(instance.id) for instance in instances))
    assert list((world.root / "compute" / "instances").iterdir()) == []


async def test_working_files_are_given_back_at_the_end(world: Any) -> None:
    instance = world.instance(Command(("/bin/sh", "-c", "echo said; head -c 100000 /dev/zero > /workspace/big"), {}))
    seen, _ = await world.run(instance)
    assert seen.exit.code == 0
    workspace = world.directory(instance) / "workspace"
    deadline = time.monotonic() + 10
    while workspace.exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert not workspace.exists()
    assert (await world.compute.read_logs(instance.id, 0, 100)).data == b"said\n"
    assert (await world.compute.observe([instance.id]))[0].exit == seen.exit


async def test_the_process_that_starts_supervisors_may_be_killed(world: Any) -> None:
    _, printed = await world.run(world.python("print('one')"))
    before = _starters()
    assert before
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    _, again = await world.run(world.python("print('two')"))
    assert (printed, again) == ("one\n", "two\n")
    assert _starters()
    assert not set(_starters()) & set(before)


async def test_the_process_that_starts_supervisors_may_hang(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.run(world.python("print('one')"))
    before = _starters()
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(launching, "_READY_SECONDS", 0.5)
    with pytest.raises(RetryLater):
        await world.run(world.python("print('two')"))
    monkeypatch.undo()
    assert (await world.run(world.python("print('two')")))[1] == "two\n"
    assert not set(_starters()) & set(before)


def _starters() -> list[int]:
    """Those of this process that live."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = entry.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if (name, int(parent)) == ("my-starter", os.getpid()) and state != "Z":
            found.append(int(entry.parent.name))
    return found
