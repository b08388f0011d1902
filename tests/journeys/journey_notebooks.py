"""Notebooks of the journeys: made, opened as a browser does, and found again among the platform's instances."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

from journey_jupyter import Jupyter
from journey_platform import RunningPlatform

from modelyard.resources.notebooks.schemas import NotebookOut

IMAGE = "Ubuntu 22.04 CPU Python Notebook"
START_SECONDS = 240.0


def created(platform: RunningPlatform, name: str, **fields: object) -> NotebookOut:
    """A notebook that answers."""
    wanted = {"image": IMAGE, "flavor": "m2.c1m2", "boot_storage_size": 10, "data_storage_size": 10} | fields
    made = platform.client.notebooks.create(name, **wanted)  # type: ignore[arg-type]
    return platform.client.notebooks.wait(made.id, timeout_seconds=START_SECONDS)


def opened(platform: RunningPlatform, notebook_id: str) -> Jupyter:
    """Its Jupyter, as a browser that came in with a one-time code sees it."""
    code = urlsplit(platform.client.notebooks.open(notebook_id).url)
    door = ("127.0.0.1", platform.http_port)
    connection = http.client.HTTPConnection(*door)
    connection.request("GET", f"{code.path}?{code.query}", headers={"Host": code.netloc})
    answer = connection.getresponse()
    assert answer.status == 302, answer.read()
    cookie = answer.headers["set-cookie"].split(";")[0]
    connection.close()
    again = http.client.HTTPConnection(*door)
    again.request("GET", f"{code.path}?{code.query}", headers={"Host": code.netloc})
    assert again.getresponse().status != 302, "a code works once"
    return Jupyter(door, code.netloc, Cookie=cookie)


def instance_of(platform: RunningPlatform, notebook_id: str) -> str:
    """The running instance of a notebook."""
    found = [
        each.parent.name
        for each in (platform.home / "compute/instances").glob("*/instance.json")
        if json.loads(each.read_text())["account"] == notebook_id and not each.with_name("exit.json").exists()
    ]
    assert len(found) == 1, found
    return found[0]
