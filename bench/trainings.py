"""Many small trainings that are submitted at once, beside the same scripts under a bare `xargs -P`.

All must complete. Three scripts take turns: one that prints a line, which shows what a training costs in all; a trivial training, which fits the
Iris data with scikit-learn; and one that computes for a second. Goal: at most twice the time of xargs for what trains.

Processor time is told by kind of process: the server (with the other processes of the control plane), supervisors, and what runs in sandboxes
beyond the script itself, that is the sandbox and the runner. On a machine that does other things too it is what can be compared.

    python bench/trainings.py [--count 100] [--scripts prints trains computes]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import httpx
from platform_home import MODELYARD, running_platform

from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.resources.images.catalog import load_catalog, to_environment
from modelyard.sdk.client import Client
from modelyard.sdk.connection import Connection

SCRIPTS = {
    "prints": "print('began', flush=True)\n",
    "trains": """
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
features, labels = load_iris(return_X_y=True)
print(LogisticRegression(max_iter=500).fit(features, labels).score(features, labels), flush=True)
""",
    "computes": """
import time
end = time.process_time() + 1
while time.process_time() < end:
    pass
print('computed', flush=True)
""",
}
IMAGE = "Ubuntu 22.04 CPU Python 3.11 Training"
REQUIREMENTS = {"trains": "scikit-learn==1.9.*\n"}
"""What a script needs beside the image; xargs gets it from an image that has it."""
IMAGES_OF_XARGS = {"trains": "Ubuntu 22.04 CPU scikit-learn 1.9 Serving"}
FLAVOR = "c2.c1m1"
AT_ONCE = 8
"""As many as the platform admits of these on two cores; xargs gets the same."""

_GOAL = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")
_SET_CHILD_SUBREAPER = 36


@dataclass
class Cost:
    """Seconds: of the clock, and of processors by kind of process."""

    clock: float
    control: float
    supervisors: float
    sandboxes: float


class Supervisors(Thread):
    """Reaps supervisors, which are left to this process when their launchers end, and adds up what they and their sandboxes have used."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.own_seconds = self.sandbox_seconds = 0.0

    def run(self) -> None:
        """Reap until the process ends."""
        while True:
            for task in Path("/proc/self/task").iterdir():
                with suppress(OSError):  # a thread that has just ended has no children any more
                    for pid in (task / "children").read_text().split():
                        self._reap(int(pid))
            time.sleep(0.1)

    def _reap(self, pid: int) -> None:
        try:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            return
        fields = rest.split()
        if name != "my-supervisor" or fields[0] != "Z":
            return
        self.own_seconds += (int(fields[11]) + int(fields[12])) / _TICKS
        self.sandbox_seconds += (int(fields[13]) + int(fields[14])) / _TICKS
        os.waitpid(pid, 0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--scripts", nargs="+", default=[*SCRIPTS], choices=[*SCRIPTS])
    options = parser.parse_args()
    supervisors = Supervisors()
    supervisors.start()
    with running_platform() as (client, connection), tempfile.TemporaryDirectory() as directory:
        home = _home(connection)
        client.storage.create_container("bench")
        for name in options.scripts:
            script = Path(directory) / name / "train.py"
            script.parent.mkdir(exist_ok=True)
            script.write_text(SCRIPTS[name])
            (script.parent / "requirements.txt").write_text(REQUIREMENTS.get(name, ""))
            client.storage.upload(script.parent, f"bench/{name}")
        for name in options.scripts:
            _together(client, connection, home, supervisors, 1, name, f"warm-{name}")
            trained = _together(client, connection, home, supervisors, options.count, name, name)
            python = _python(home, IMAGES_OF_XARGS.get(name, IMAGE))
            bare = _bare(python, Path(directory) / name / "train.py", options.count)
            _print(options.count, name, trained, bare)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")


def _together(
    client: Client,
    connection: Connection,
    home: Path,
    supervisors: Supervisors,
    count: int,
    script: str,
    prefix: str,
) -> Cost:
    url = f"{connection.api_url}/v1.0/appkeys/{connection.app_key}/trainings"
    headers = {"x-nhn-authorization": f"Bearer {connection.access_token}"}
    body = {
        "imageId": IMAGE,
        "flavorId": FLAVOR,
        "sourceDirUri": client.storage.uri(f"bench/{script}"),
        "entryPoint": "train.py",
    }

    def create(number: int) -> str:
        name = f"{prefix}-{number}"
        answer = http.post(
            url, json=body | {"trainingName": name, "modelUploadUri": client.storage.uri(f"bench/output/{name}")}
        )
        return str(answer.raise_for_status().json()["training"]["trainingId"])

    with httpx.Client(headers=headers, timeout=120) as http, ThreadPoolExecutor(8) as threads:
        own, inside = supervisors.own_seconds, supervisors.sandbox_seconds
        control, begun = _control_seconds(home), time.monotonic()
        ended_before = _counted(http, url, _ENDS)
        list(threads.map(create, range(count)))
        submitted = time.monotonic() - begun
        while _counted(http, url, _ENDS) < ended_before + count:
            time.sleep(1.0)  # each question costs the server, too
        if _counted(http, url, _FAILURES):
            raise SystemExit("a training has failed")
        cost = Cost(time.monotonic() - begun, _control_seconds(home) - control, 0.0, 0.0)
        time.sleep(1.0)  # the last supervisors are reaped
        cost.supervisors, cost.sandboxes = supervisors.own_seconds - own, supervisors.sandbox_seconds - inside
    print(f"  {count} requests answered within {submitted:.2f} s")
    return cost


_FAILURES = ("FAIL_TRAIN", "CREATE_FAILED", "STOPPED")
_ENDS = ("COMPLETE", *_FAILURES)


def _counted(http: httpx.Client, url: str, states: Sequence[str]) -> int:
    """How many trainings are in these states: a count costs the server least."""
    answer = http.get(url, params={"limit": 1, "trainingStatusCodeList": list(states)})
    return int(answer.raise_for_status().json()["paging"]["totalCount"])


def _bare(python: Path, script: Path, count: int) -> Cost:
    command = ["xargs", "-P", str(AT_ONCE), "-I{}", str(python), str(script)]
    spent, begun = _children_seconds(), time.monotonic()
    lines = "\n".join(map(str, range(count)))
    subprocess.run(command, input=lines, text=True, check=True, stdout=subprocess.DEVNULL)
    return Cost(time.monotonic() - begun, 0.0, 0.0, _children_seconds() - spent)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _home(connection: Connection) -> Path:
    return next(place for place in Path(str(connection.ca_file)).parents if (place / "run").is_dir())


def _python(home: Path, image_name: str) -> Path:
    image = next(image for image in load_catalog() if image.name == image_name)
    return EnvironmentStore(home / "environments").python(to_environment(image))


def _control_seconds(home: Path) -> float:
    """Processor time of server, keeper and Envoy up to now."""
    told = subprocess.run(
        [*MODELYARD, "status", "--home", str(home), "--output", "json"], check=True, capture_output=True, text=True
    )
    pids = {row["pid"] for row in json.loads(told.stdout) if row["role"] in ("server", "keeper", "gateway", "envoy")}
    return sum(_processor_seconds(pid) for pid in pids if pid is not None)


def _processor_seconds(pid: int) -> float:
    """Of a process, and of those that it has started and seen end."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _print(count: int, name: str, trained: Cost, bare: Cost) -> None:
    ratio = trained.clock / bare.clock
    script = bare.sandboxes / count * 1000
    parts = {
        "server": trained.control / count * 1000,
        "supervisor": trained.supervisors / count * 1000,
        "sandbox and runner": trained.sandboxes / count * 1000 - script,
        "script": script,
    }
    print(f"{count} times the script that {name}:")
    print(
        f"  trainings {trained.clock:7.2f} s, xargs -P{AT_ONCE} {bare.clock:7.2f} s, ratio {ratio:.2f} (goal {_GOAL:g})"
    )
    told = ", ".join(f"{kind} {each:.0f} ms" for kind, each in parts.items())
    print(f"  processor time of each: {told}; in all {sum(parts.values()) / script:.2f} times the script", flush=True)


if __name__ == "__main__":
    sys.exit(main())
