"""A whole platform as a user starts it: by the command, on ports and a home of its own, with real environments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx
from journey_processes import Process, process, processes_of, wait_until_gone

from modelyard.sdk.client import Client
from modelyard.sdk.connection import Connection

UP_SECONDS = 150.0
DOWN_SECONDS = 90.0
SHORT_SECONDS = 60.0
"""Deadlines. They are for what hangs, on a machine that others load; nothing is expected to take as long."""

T = TypeVar("T")


@dataclass
class RunningPlatform:
    """One home and the commands on it. `options` go to each `up`."""

    home: Path
    http_port: int
    https_port: int
    options: tuple[str, ...] = ()
    seen: dict[int, Process] = field(default_factory=dict[int, Process])

    def up(self, *more: str) -> subprocess.CompletedProcess[str]:
        """`modelyard up --detach`; what it said."""
        done = self.command("up", *self.up_arguments, "--detach", *more, seconds=UP_SECONDS)
        self.__dict__.pop("credentials", None)
        return done

    @property
    def up_arguments(self) -> tuple[str, ...]:
        """Ports and options of this platform."""
        return ("--http-port", str(self.http_port), "--https-port", str(self.https_port), *self.options)

    def down(self) -> subprocess.CompletedProcess[str]:
        """`modelyard down`; what it said. Remembers what ran before."""
        self.remember()
        return self.command("down", seconds=DOWN_SECONDS)

    def command(
        self, name: str, *arguments: str, seconds: float = SHORT_SECONDS, prefix: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run `modelyard NAME --home HOME …` to its end."""
        return subprocess.run(
            [*prefix, *self.argv(name, *arguments)],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=clean_environment(),
        )

    def argv(self, name: str, *arguments: str) -> list[str]:
        """The command line of a command on this home."""
        return [sys.executable, "-m", "modelyard", name, "--home", str(self.home), *arguments]

    @cached_property
    def credentials(self) -> dict[str, Any]:
        """`modelyard credentials --output json`."""
        return dict(json.loads(self.command("credentials", "--output", "json").stdout))

    @cached_property
    def client(self) -> Client:
        """An SDK client."""
        known = self.credentials
        return Client(
            Connection(known["apiUrl"], known["appKey"], known["accessToken"], Path(known["caFile"]), known["httpsUrl"])
        )

    @property
    def api(self) -> str:
        """The REST API of the project."""
        return f"{self.credentials['apiUrl']}/v1.0/appkeys/{self.credentials['appKey']}"

    @property
    def headers(self) -> dict[str, str]:
        """Credentials for a plain request to the REST API."""
        return {"x-nhn-authorization": f"Bearer {self.credentials['accessToken']}"}

    def status(self) -> list[dict[str, Any]]:
        """`modelyard status --output json`."""
        return list(json.loads(self.command("status", "--output", "json").stdout))

    def pid_of(self, role: str) -> int:
        """The process that `status` names for a role of the platform, or for the only instance of a role."""
        pids = [row["pid"] for row in self.status() if row["role"] == role and row["pid"] is not None]
        assert len(pids) == 1, f"{role}: {self.status()}"
        return int(pids[0])

    def server_pid(self) -> int:
        """The server, as the platform's own file names it."""
        return int(self.home.joinpath("run/server-0.lock").read_text())

    def kill_server(self) -> int:
        """kill -9 of the server; its number. The caller goes on at once."""
        pid = self.server_pid()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: process(pid) is None, "the killed server ends")
        return pid

    def is_serving(self) -> bool:
        """Whether the API answers."""
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.http_port}/health", timeout=2.0).status_code == 200
        return False

    def wait_until_serving(self, seconds: float = UP_SECONDS) -> None:
        """Until the API answers (again)."""
        eventually(self.is_serving, "the API answers", seconds)

    def instances(self, resource_id: str = "") -> list[str]:
        """Ids of the instances that compute keeps, of one workload or of all: `{workload}.{index}.{attempt}`."""
        place = self.home / "compute/instances"
        return (
            sorted(each.name for each in place.iterdir() if each.name.startswith(resource_id)) if place.exists() else []
        )

    def supervisor_pid(self, instance_id: str) -> int:
        """The process that watches over an instance."""
        return int(json.loads((self.home / "compute/instances" / instance_id / "supervisor.json").read_text())["pid"])

    def remember(self) -> None:
        """Note every process of the home that runs now."""
        self.seen.update({each.pid: each for each in processes_of(self.home)})

    def left_over(self) -> list[Process]:
        """What runs of this home although it should not, and of all that was remembered."""
        return wait_until_gone(self.home, list(self.seen.values()))

    def server_log(self, line_count: int = 60) -> str:
        """The end of the server's and the keeper's log."""
        parts: list[str] = []
        for name in ("server.log", "keeper.log"):
            with suppress(OSError):
                lines = self.home.joinpath("logs", name).read_text(errors="replace").splitlines()
                parts.append(f"--- {name}\n" + "\n".join(lines[-line_count:]))
        return "\n".join(parts)

    def evidence(self) -> str:
        """What helps to understand a failure: states and events of all that is there, and the server's log."""
        return "\n".join([*self._histories(), self.server_log()])

    def close(self) -> None:
        """End everything, also after a failure half-way."""
        if "client" in self.__dict__:
            self.client.close()
        with suppress(subprocess.TimeoutExpired):
            self.down()
        for each in self.left_over():  # a test has failed then; what it has left must not disturb the others
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)

    def _histories(self) -> Iterator[str]:
        with suppress(httpx.HTTPError, KeyError, ValueError, subprocess.TimeoutExpired):
            for kind, payload, path in (
                ("training", "trainingList", "trainings"),
                ("endpointStage", "endpointStageList", "endpoint-stages"),
            ):
                found = httpx.get(f"{self.api}/{path}", headers=self.headers, timeout=10).json()[payload]
                for item in found[:6]:
                    url = f"{self.api}/{path}/{item[f'{kind}Id']}/events"
                    yield f"--- {kind} {item['name']}: {item.get('lastLogLines', '')}"
                    for event in httpx.get(url, headers=self.headers, timeout=10).json()["eventList"]:
                        yield "  " + " ".join(str(value) for value in event.values())


MakePlatform = Callable[..., RunningPlatform]
"""The fixture `make_platform`: options of `up`, and `is_up=False` for a home that is only prepared."""


def eventually(
    check: Callable[[], T | None], what: str, seconds: float = SHORT_SECONDS, pause_seconds: float = 0.05
) -> T:
    """The first answer of `check` that is true. Fails when the time is over."""
    deadline = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(pause_seconds)
    return answer


def clean_environment(**more: str) -> dict[str, str]:
    """Our environment without what would change how the platform behaves or slow it down."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODELYARD_", "EM_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept | more
