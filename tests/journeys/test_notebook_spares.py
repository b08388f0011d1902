"""A notebook that was ready before it was created, as its user and the administrator see it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from journey_notebooks import START_SECONDS, created, instance_of, opened
from journey_platform import MakePlatform, RunningPlatform, eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("notebook_image")]


def ready_spare(platform: RunningPlatform) -> dict[str, Any] | None:
    """The record of an instance that waits for somebody, once its Jupyter answers."""
    for path in (platform.home / "compute/instances").glob("*/instance.json"):
        facts = json.loads(path.read_text())
        report = Path(facts["run_directory"], "report.json")
        if (
            facts["role"] == "spare-notebook"
            and report.exists()
            and json.loads(report.read_text())["step"] == "running"
        ):
            return facts
    return None


def test_a_notebook_is_there_before_it_is_created(make_platform: MakePlatform) -> None:
    platform = make_platform(is_up=False)
    config = platform.home / "config.toml"
    config.write_text("[notebooks]\nspares = 1\n")
    assert platform.up().returncode == 0
    client = platform.client
    begun = time.monotonic()
    first = created(platform, "first")
    opened(platform, first.id)
    cold_seconds = time.monotonic() - begun
    spare = eventually(lambda: ready_spare(platform), "one is kept ready", START_SECONDS)
    assert [row["role"] for row in platform.status()].count("spare-notebook") == 1
    assert [each.id for each in client.notebooks.list()] == [first.id], "no project sees it"

    begun = time.monotonic()
    warm = created(platform, "warm")
    jupyter = opened(platform, warm.id)
    assert jupyter.call("GET", "/lab")[0] == 200
    warm_seconds = time.monotonic() - begun
    assert (warm.id, instance_of(platform, warm.id)) == (spare["account"], spare["id"])
    assert warm_seconds < cold_seconds
    known = "import os, easymaker; print(os.environ['EM_NOTEBOOK_ID'], type(easymaker.Experiment.get_list()).__name__)"
    assert jupyter.run(known) == f"{warm.id} list\n"
    assert warm.id in jupyter.shell("echo $EM_NOTEBOOK_ID")
    jupyter.run("open('/root/easymaker/kept', 'w').write('kept')")
    eventually(lambda: role_of(platform, spare["id"]) == "notebook", "it is shown as what it is now")

    second = eventually(lambda: ready_spare(platform), "another is kept ready", START_SECONDS)
    killed = client.notebooks.create(
        "killed",
        image="Ubuntu 22.04 CPU Python Notebook",
        flavor="m2.c1m2",
        boot_storage_size=10,
        data_storage_size=10,
        idle_stop_minutes=45,
    )
    platform.kill_server()  # it is given, and maybe not told
    platform.wait_until_serving()
    assert killed.id == second["account"]
    client.notebooks.wait(killed.id, timeout_seconds=START_SECONDS)
    told = Path(second["run_directory"], "told.json")
    eventually(lambda: told.exists() and json.loads(told.read_text())["idle_minutes"] == 45, "it is told")
    assert opened(platform, killed.id).run("import os; print(os.listdir('/root/easymaker'))").count("kept") == 0

    client.notebooks.stop(warm.id)
    eventually(lambda: client.notebooks.get(warm.id).notebook_status_code == "STOPPED", "it is stopped", 60)
    client.notebooks.start(warm.id)
    client.notebooks.wait(warm.id, timeout_seconds=START_SECONDS)
    assert opened(platform, warm.id).run("print(open('/root/easymaker/kept').read())") == "kept\n"

    for notebook in (first, warm, killed):
        client.notebooks.delete(notebook.id, wait=True, timeout_seconds=90)
    eventually(lambda: ready_spare(platform), "one is there again", START_SECONDS)
    assert platform.down().returncode == 0
    config.write_text("[notebooks]\nspares = 0\n")
    assert platform.up().returncode == 0
    volumes = platform.home / "compute/volumes"
    eventually(lambda: not list(volumes.iterdir()), "what nobody wants is gone", 60)
    assert "spare-notebook" not in [row["role"] for row in platform.status()]


def role_of(platform: RunningPlatform, instance: str) -> str:
    return json.loads((platform.home / "compute/instances" / instance / "instance.json").read_text())["role"]
