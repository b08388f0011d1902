"""Many small trainings that are submitted at once, beside the same scripts under a bare `xargs -P`.

All must complete. Two kinds of script take turns: one that prints a line, which shows what a training costs in all, and one that computes for a
second, which shows what is left of that cost where there is something to do. Goal: at most twice the time of xargs. The processor time of the
control plane (server, keeper, Envoy) is what these processes used meanwhile; that of supervisors, sandboxes and runners is in "in all",
which counts the machine and so everything else that runs on it.

    python bench/trainings.py [--count 100] [--work-seconds 0 1]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from platform_home import MODELYARD, running_platform

from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.resources.images.catalog import load_catalog, to_environment
from modelyard.sdk.client import Client
from modelyard.sdk.connection import Connection

SCRIPT = """
import sys, time
seconds = float(sys.argv[-1])
print("began", flush=True)
end = time.process_time() + seconds
while time.process_time() < end:
    pass
"""
IMAGE = "Ubuntu 22.04 CPU Python 3.11 Training"
FLAVOR = "c2.c1m1"
AT_ONCE = 8
"""As many as the platform admits of these on two cores; xargs gets the same."""

_GOAL = 2.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """Seconds: of the clock, of the control plane's processors, of all processors."""

    clock: float
    control: float
    machine: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--work-seconds", type=float, nargs="+", default=[0.0, 1.0])
    options = parser.parse_args()
    with running_platform() as (client, connection), tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "train.py"
        script.write_text(SCRIPT)
        client.storage.create_container("bench")
        client.storage.upload(script, "bench/source/train.py")
        home = _home(connection)
        _together(client, connection, home, 1, 0.0, "warm")
        for seconds in options.work_seconds:
            trained = _together(client, connection, home, options.count, seconds, f"w{seconds:g}")
            bare = _bare(_python(home), script, options.count, seconds)
            _print(options.count, seconds, trained, bare)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")


def _together(client: Client, connection: Connection, home: Path, count: int, seconds: float, prefix: str) -> Cost:
    url = f"{connection.api_url}/v1.0/appkeys/{connection.app_key}/trainings"
    headers = {"x-nhn-authorization": f"Bearer {connection.access_token}"}
    body = {
        "imageId": IMAGE,
        "flavorId": FLAVOR,
        "sourceDirUri": client.storage.uri("bench/source"),
        "entryPoint": "train.py",
        "hyperparameterList": [{"parameterName": "seconds", "parameterValue": f"{seconds:g}"}],
    }

    def create(number: int) -> str:
        name = f"{prefix}-{number}"
        answer = http.post(
            url, json=body | {"trainingName": name, "modelUploadUri": client.storage.uri(f"bench/output/{name}")}
        )
        return str(answer.raise_for_status().json()["training"]["trainingId"])

    with httpx.Client(headers=headers, timeout=120) as http, ThreadPoolExecutor(8) as threads:
        control, machine, begun = _control_seconds(home), _machine_seconds(), time.monotonic()
        ids = set(threads.map(create, range(count)))
        submitted = time.monotonic() - begun
        while ids:
            found = http.get(url, params={"limit": count}).raise_for_status().json()["trainingList"]
            ended = {item["trainingId"]: item for item in found if item["trainingStatusCode"] in _ENDS} | {}
            for item in ended.values():
                if item["trainingId"] in ids and item["trainingStatusCode"] != "COMPLETE":
                    raise SystemExit(f"{item['name']}: {item['trainingStatusCode']} {item['statusMessage']}")
            ids -= set(ended)
            time.sleep(0.5)
        cost = Cost(time.monotonic() - begun, _control_seconds(home) - control, _machine_seconds() - machine)
    print(f"  {count} requests answered within {submitted:.2f} s")
    return cost


_ENDS = ("COMPLETE", "FAIL_TRAIN", "CREATE_FAILED", "STOPPED")


def _bare(python: Path, script: Path, count: int, seconds: float) -> Cost:
    command = ["xargs", "-P", str(AT_ONCE), "-I{}", str(python), str(script), "--seconds", f"{seconds:g}"]
    machine, begun = _machine_seconds(), time.monotonic()
    lines = "\n".join(map(str, range(count)))
    subprocess.run(command, input=lines, text=True, check=True, stdout=subprocess.DEVNULL)
    return Cost(time.monotonic() - begun, 0.0, _machine_seconds() - machine)


def _home(connection: Connection) -> Path:
    return next(place for place in Path(str(connection.ca_file)).parents if (place / "run").is_dir())


def _python(home: Path) -> Path:
    image = next(image for image in load_catalog() if image.name == IMAGE)
    return EnvironmentStore(home / "environments").python(to_environment(image))


def _control_seconds(home: Path) -> float:
    """Processor time of server, keeper and Envoy up to now."""
    told = subprocess.run(
        [*MODELYARD, "status", "--home", str(home), "--output", "json"], check=True, capture_output=True, text=True
    )
    pids = {row["pid"] for row in json.loads(told.stdout) if row["role"] in ("server", "keeper", "gateway", "envoy")}
    return sum(_processor_seconds(pid) for pid in pids if pid is not None)


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _machine_seconds() -> float:
    """Processor time that was not idle, of the whole machine."""
    values = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(values[:3]) + sum(values[5:8])) / _TICKS


def _print(count: int, seconds: float, trained: Cost, bare: Cost) -> None:
    ratio = trained.clock / bare.clock
    print(f"{count} scripts of {seconds:g} s:")
    print(
        f"  trainings  {trained.clock:7.2f} s   control plane {trained.control / count * 1000:6.1f} ms each   ", end=""
    )
    print(f"in all {trained.machine / count * 1000:6.1f} ms each")
    print(f"  xargs -P{AT_ONCE}  {bare.clock:7.2f} s   {'':27}   in all {bare.machine / count * 1000:6.1f} ms each")
    print(f"  ratio {ratio:.2f}; goal {_GOAL:g}: {'met' if ratio <= _GOAL else 'MISSED'}")


if __name__ == "__main__":
    sys.exit(main())
