"""`kill -9` of the server, of Envoy and of the supervisor at each step of a notebook's life: it ends right, and no byte of the data is lost."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from journey_jupyter import Jupyter
from journey_notebooks import DIGEST, IMAGE, START_SECONDS, TREE, instance_of, opened
from journey_platform import RunningPlatform, eventually
from journey_processes import process, still_alive

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("notebook_image")]


_SIZES = {"server": 110, "gateway": 120, "supervisor": 130}


class Life:
    """A notebook, and who is killed on the way."""

    def __init__(self, platform: RunningPlatform, victim: str) -> None:
        self.platform = platform
        self.notebooks = platform.client.notebooks
        self.victim = victim
        size = _SIZES[victim]  # another than all else has: none is kept ready, so that it is really created
        made = self.notebooks.create(
            victim, image=IMAGE, flavor="m2.c1m2", boot_storage_size=10, data_storage_size=size
        )
        self.id = made.id

    @property
    def state(self) -> str:
        return self.notebooks.get(self.id).notebook_status_code

    def kill(self) -> None:
        """As soon as there is something to kill; it must have been alive."""
        is_own = self.victim == "supervisor"
        pid = eventually(self._supervisor, "it has one") if is_own else self.platform.pid_of(self.victim)
        killed = process(pid)
        assert killed is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not still_alive([killed]), "it is dead")

    def jupyter(self) -> Jupyter:
        """Once it answers."""
        self.notebooks.wait(self.id, timeout_seconds=START_SECONDS)
        self.platform.wait_until_serving()
        jupyter = opened(self.platform, self.id)
        eventually(lambda: reaches(jupyter), "its Jupyter answers")
        return jupyter

    def _supervisor(self) -> int | None:
        with suppress(AssertionError, OSError, ValueError):
            return self.platform.supervisor_pid(instance_of(self.platform, self.id))
        return None


def reaches(jupyter: Jupyter) -> bool:
    """Whether Jupyter itself answers through the front door."""
    with suppress(OSError, ConnectionError):
        return jupyter.call("GET", "/api")[0] == 200
    return False


@pytest.mark.parametrize("victim", list(_SIZES))
def test_what_is_killed_at_any_step_does_not_keep_it_from_its_end(platform: RunningPlatform, victim: str) -> None:
    life = Life(platform, victim)
    notebooks, id = life.notebooks, life.id
    life.kill()  # while it is created
    jupyter = life.jupyter()
    assert jupyter.run(TREE) == ""
    digest = jupyter.run(DIGEST)
    assert int(digest.split()[0]) > 30, digest

    kernel = jupyter.kernel()
    kernel.run("kept = 42")
    before = instance_of(platform, id)
    life.kill()  # while it runs
    if victim == "supervisor":
        eventually(lambda: unhealthy_count(platform, id) >= 1, "it is seen")
        eventually(lambda: running_instance(platform, id) not in (None, before), "another instance runs")
    jupyter = life.jupyter()
    assert jupyter.run(DIGEST) == digest
    if victim == "server":
        assert kernel.run("print(kept)") == "42\n", "neither kernel nor WebSocket has noticed"
    elif victim == "gateway":
        kernel.socket = kernel.open()
        assert kernel.run("print(kept)") == "42\n", "the kernel has not noticed"
        kill_jupyter(jupyter)
        eventually(lambda: unhealthy_count(platform, id) >= 1, "it is seen")
        life.jupyter()
    if victim != "supervisor":
        assert instance_of(platform, id) == before

    notebooks.stop(id)
    life.kill()  # while it stops
    eventually(lambda: life.state == "STOPPED", "it is stopped", 90)
    assert running_instance(platform, id) is None
    notebooks.start(id)
    life.kill()  # while it starts
    assert life.jupyter().run(DIGEST) == digest

    notebooks.delete(id)
    life.kill()  # while it is deleted
    eventually(lambda: is_gone(platform, id), "it is gone", 90)
    platform.wait_until_serving()
    assert not (platform.home / "compute/volumes" / id).exists()
    assert running_instance(platform, id) is None
    images = [each.read_text().strip() for each in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert not [image for image in images if id in image], "no loop device holds its storage"


def is_gone(platform: RunningPlatform, id: str) -> bool:
    return all(each.id != id for each in platform.client.notebooks.list())


def running_instance(platform: RunningPlatform, id: str) -> str | None:
    """The one that has not ended, if there is one."""
    for each in (platform.home / "compute/instances").glob("*/instance.json"):
        with suppress(OSError, ValueError):
            if json.loads(each.read_text())["account"] == id and not each.with_name("exit.json").exists():
                return each.parent.name
    return None


def kill_jupyter(jupyter: Jupyter) -> None:
    """Jupyter alone, as a kernel of the notebook can."""
    with suppress(AssertionError, ConnectionError, OSError):
        jupyter.run(
            "import os\n"
            "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
            "    if b'notebook.lab' in open(f'/proc/{pid}/cmdline', 'rb').read(): os.kill(int(pid), 9)"
        )


def unhealthy_count(platform: RunningPlatform, notebook_id: str) -> int:
    """How often it has become unhealthy, by its events: the state itself may be over before anybody asks."""
    events = platform.client.notebooks.events(notebook_id)
    return sum(
        event.new_status_code == "ACTIVE_UNHEALTHY" and event.old_status_code != "ACTIVE_UNHEALTHY" for event in events
    )
