"""Two notebooks side by side: what one tries to reach of the other, of the platform, and of the machine."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from journey_breakout import ATTEMPTS
from journey_notebooks import START_SECONDS, instance_of, opened
from journey_platform import MakePlatform, RunningPlatform, eventually

pytestmark = pytest.mark.slow

# Below the ephemeral ports: of those, a notebook's own kernels have some in its own network, and a number may be the same by chance.
VICTIM_PORT, MACHINE_PORT = 18765, 18766
SECRET = "only-for-one-notebook"
REPLACE = """
import os, shutil
def replace(path, target):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
    os.symlink(target, path)
"""


@pytest.mark.parametrize("isolation", ["WORKLOAD_USER", "NAMESPACES"])
def test_nobody_breaks_out(
    platform: RunningPlatform, make_platform: MakePlatform, notebook_image: str, isolation: str
) -> None:
    """With an account for each notebook where the platform is root, and as where it is not: with namespaces alone."""
    if isolation == "NAMESPACES":
        platform = make_platform(is_up=False)
        (platform.home / "config.toml").write_text(f'[compute]\nisolation = "{isolation}"\n[notebooks]\nspares = 0\n')
        assert platform.up().returncode == 0
    client = platform.client
    thief, victim = (
        client.notebooks.create(
            name, image=notebook_image, flavor="m2.c1m2", boot_storage_size=10, data_storage_size=10
        ).id
        for name in ("thief", "victim")
    )
    for each in (thief, victim):
        client.notebooks.wait(each, timeout_seconds=START_SECONDS)
    theirs = opened(platform, victim)
    kernel = theirs.kernel()
    listens = f"import socket; s = socket.create_server(('127.0.0.1', {VICTIM_PORT})); open('/root/easymaker/secret', 'w').write({SECRET!r})"
    assert kernel.run(listens) == ""

    jupyter = opened(platform, thief)
    with socket.create_server(("127.0.0.1", MACHINE_PORT)) as of_the_machine:
        targets = breakable(platform, victim, of_the_machine.getsockname()[1])
        assert jupyter.run(f"TARGETS = {targets!r}\n{ATTEMPTS}") == "tried True\n"
        of_the_machine.setblocking(False)
        with pytest.raises(BlockingIOError):
            of_the_machine.accept()
    assert kernel.run("print(s.fileno() > 0)") == "True\n"

    # By the way that its own pages come: links instead of its own socket and report.
    inside = jupyter.kernel()
    inside.run(REPLACE)
    for target in targets["sockets"]:
        assert inside.run(f"replace('/run/modelyard/jupyter.sock', {target!r})") == ""
        for path in ("/health", "/api/contents/easymaker/secret", "/config_dump", "/stats", "/api/kernels"):
            with suppress(ConnectionError):
                _, answer = jupyter.call("GET", path)
                for told in (SECRET, kernel.id, '"isSuccessful":true', "static_resources", "cluster."):
                    assert told.encode() not in answer, (target, path, answer)
    outside = platform.home / "outside.json"
    outside.write_text(
        json.dumps({"step": "running", "message": SECRET, "kept": [SECRET], "steps": [{"step": SECRET}]})
    )
    assert inside.run(f"replace('/run/modelyard/report.json', {str(outside)!r})") == ""

    if isolation == "NAMESPACES":
        return
    # What it has left does not lead the platform astray either.
    kept = platform.home / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    for name in ("custom-conda-envs", "cont-init.d", ".modelyard", "more"):
        assert inside.run(f"replace('/root/easymaker/{name}', {str(kept)!r})") == ""
    client.notebooks.stop(thief)
    eventually(lambda: client.notebooks.get(thief).notebook_status_code == "STOPPED", "it is stopped")
    assert SECRET not in client.notebooks.get(thief).model_dump_json()
    client.notebooks.start(thief)
    client.notebooks.wait(thief, timeout_seconds=START_SECONDS)
    assert [each.name for each in kept.iterdir()] == ["file"]
    for each in (thief, victim):
        client.notebooks.delete(each, wait=True, timeout_seconds=90)
    assert (kept / "file").read_text() == "kept"


def breakable(platform: RunningPlatform, victim: str, port: int) -> dict[str, list[Any]]:
    """What there is to be had: of the other notebook, the platform, and the machine."""
    home = platform.home
    instance = instance_of(platform, victim)
    record = json.loads((home / "compute/instances" / instance / "instance.json").read_text())
    run, volume = Path(record["run_directory"]), home / "compute/volumes" / victim
    sockets = [home / "run/server-0.sock", home / "run/guard-0.sock", run / "jupyter.sock", home / "gateway/admin.sock"]
    paths = [
        home / "modelyard.db",
        home / "secrets/tokens.key",
        home / "compute/instances",
        run,
        volume,
        *volume.iterdir(),
    ]
    hosts = ("127.0.0.1", socket.gethostbyname(socket.gethostname()))
    assert all(path.exists() for path in [*sockets, *paths]), "what is tried for is there"
    return {
        "sockets": [str(path) for path in sockets],
        "paths": [str(path) for path in paths],
        "addresses": [(host, number) for host in hosts for number in (port, VICTIM_PORT)],
        "pids": [os.getpid(), platform.server_pid(), platform.supervisor_pid(instance)],
        "devices": [home.stat().st_dev, os.makedev(7, 0)],
    }
