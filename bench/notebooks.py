"""Creating a notebook → its page is usable, beside a bare `jupyter lab` of the same image and a JupyterHub; several at once; a kernel's answer.

    python bench/notebooks.py [--count 5] [--together 20] [--calls 200] [--jupyterhub HUB/bin/python]

The starts take turns, so that load on the machine meets all alike. Each time ends when `GET /lab` is answered. The bare one's begins with its
process, the others with the call that creates a notebook or starts a server; the platform's includes the way through the front door with a
one-time code. *Ready* is the platform where a notebook was kept ready: a second platform, so that neither disturbs the other.

Goals: at most 1.1 times the bare start (p50); a second where one is ready; 20 at once in at most half of JupyterHub's time; a kernel's answer
through the gateway at most 2 ms later (p50) than straight from Jupyter's socket. How to make a JupyterHub: `jupyterhub_peer.py`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from jupyterhub_peer import Hub, running_hub
from platform_home import MODELYARD, running_platform
from processor_time import of_trees

from modelyard.compute.backends.local.build import build_environment
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.resources.images.catalog import load_catalog, to_environment
from modelyard.sdk.client import Client
from modelyard.sdk.connection import Connection
from modelyard.testing.ports import free_port

sys.path.append(str(Path(__file__).parent.parent / "tests" / "journeys"))
_Jupyter: Any = import_module("journey_jupyter").Jupyter  # the tests' WebSocket client

IMAGE = "Ubuntu 22.04 CPU Python Notebook"
FLAVOR = "c2.c1m1"
COLD = "[notebooks]\nspares = 0\n"
WARM = "[notebooks]\nspares = 1\n"
WAIT_SECONDS = 600.0
PAUSE_SECONDS = 0.5  # of each of many who wait at once: asking is work for the same processors


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=5, help="how many starts of each")
    parser.add_argument("--together", type=int, default=20, help="how many notebooks at once; 0 leaves that out")
    parser.add_argument(
        "--calls", type=int, default=200, help="how many answers of a kernel, each way; 0 leaves that out"
    )
    parser.add_argument(
        "--jupyterhub", type=Path, help="the interpreter of an environment with JupyterHub; without, it is left out"
    )
    asked = parser.parse_args()
    image = _image()
    with ExitStack() as stack:
        cold = _Side(*stack.enter_context(running_platform(COLD)))
        warm = _Side(*stack.enter_context(running_platform(WARM)))
        hub = None if asked.jupyterhub is None else stack.enter_context(running_hub(asked.jupyterhub))
        first, _ = cold.created("first")  # what is done once for a platform
        warm.client.notebooks.delete(warm.created("first")[0], wait=True)
        times = _take_turns(asked.count, image, cold, warm, hub)
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {asked.count} starts of each; seconds")
        for name, values in times.items():
            print(f"{name:18} p50 {statistics.median(values):5.2f}   min {min(values):5.2f}   max {max(values):5.2f}")
        ratio = statistics.median(times["platform"]) / statistics.median(times["bare jupyter lab"])
        print(f"platform / bare (p50): {ratio:.2f}   goal 1.10")
        if asked.calls:
            _compare_answers(cold.opened(first), _Jupyter(_socket(cold.home, first)), asked.calls)
        cold.client.notebooks.delete(first, wait=True)
        if asked.together:
            _start_together(cold, hub, asked.together)


def _take_turns(count: int, image: Path, cold: _Side, warm: _Side, hub: Hub | None) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"bare jupyter lab": [], "platform": [], "platform, ready": []}
    if hub is not None:
        times["JupyterHub"] = []
    for number in range(count):
        warm.wait_for_spare()
        times["bare jupyter lab"].append(_bare(image))
        notebook, seconds = cold.created(f"n{number}")
        times["platform"].append(seconds)
        cold.client.notebooks.delete(notebook, wait=True)
        notebook, seconds = warm.created(f"n{number}")
        times["platform, ready"].append(seconds)
        warm.client.notebooks.delete(notebook, wait=True)
        if hub is not None:
            times["JupyterHub"].append(hub.start(f"n{number}"))
            hub.stop(f"n{number}")
    return times


class _Side:
    """A platform that runs."""

    def __init__(self, client: Client, connection: Connection) -> None:
        self.client = client
        self.home = Path(str(connection.ca_file)).parent.parent
        self._door = ("127.0.0.1", urlsplit(connection.api_url).port or 0)

    def created(self, name: str, pause_seconds: float = 0.02) -> tuple[str, float]:
        """A notebook's id, and how long it took until its page was there, asked for with such pauses."""
        notebooks = self.client.notebooks
        began = time.monotonic()
        made = notebooks.create(name, image=IMAGE, flavor=FLAVOR, boot_storage_size=10, data_storage_size=10)
        while notebooks.get(made.id).notebook_status_code != "ACTIVE_HEALTHY":
            if time.monotonic() > began + WAIT_SECONDS:
                raise SystemExit(f"the notebook {name} does not start")
            time.sleep(pause_seconds)
        status, _ = self.opened(made.id).call("GET", "/lab")
        if status != 200:
            raise SystemExit(f"the page of {name} is answered with {status}")
        return made.id, time.monotonic() - began

    def opened(self, notebook: str) -> Any:
        """Its Jupyter, as a browser that came in with a one-time code sees it."""
        code = urlsplit(self.client.notebooks.open(notebook).url)
        connection = http.client.HTTPConnection(*self._door)
        connection.request("GET", f"{code.path}?{code.query}", headers={"Host": code.netloc})
        cookie = connection.getresponse().headers["set-cookie"].split(";")[0]
        connection.close()
        return _Jupyter(self._door, code.netloc, Cookie=cookie)

    def processor_seconds(self) -> float:
        """Of the platform, the supervisors, and all that runs in the notebooks."""
        status = [*MODELYARD, "status", "--home", str(self.home), "--output", "json"]
        rows = json.loads(subprocess.run(status, check=True, capture_output=True).stdout)
        platform = [row["pid"] for row in rows if row["role"] in ("keeper", "server", "gateway")]
        records = (self.home / "compute" / "instances").glob("*/supervisor.json")
        return of_trees([*platform, *(json.loads(record.read_text())["pid"] for record in records)])

    def wait_for_spare(self) -> None:
        """Return when a notebook is kept ready."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            for record in (self.home / "compute" / "instances").glob("*/instance.json"):
                facts = json.loads(record.read_text())
                report = Path(facts["run_directory"], "report.json")
                if facts["role"] == "spare-notebook" and report.exists() and '"step": "running"' in report.read_text():
                    time.sleep(1.0)  # the platform looks five times a second
                    return
            time.sleep(0.1)
        raise SystemExit("no notebook is kept ready")


def _image() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "modelyard-tests" / "environments"
    environment = to_environment(next(each for each in load_catalog() if each.name == IMAGE))
    build_environment(environment, cache, lambda step, message, progress: None)
    return EnvironmentStore(cache).path(environment)


def _bare(image: Path) -> float:
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        environment = {"HOME": directory, "PATH": f"{image}/bin:{os.environ['PATH']}"}
        options = (
            "--no-browser",
            "--allow-root",
            f"--port={port}",
            "--ServerApp.token=",
            f"--notebook-dir={directory}",
        )
        began = time.monotonic()
        process = subprocess.Popen(
            [f"{image}/bin/jupyter-lab", *options],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while time.monotonic() < began + WAIT_SECONDS:
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/lab", trust_env=False, timeout=30).status_code == 200:
                        return time.monotonic() - began
                except httpx.HTTPError:
                    time.sleep(0.02)
        finally:
            process.terminate()
            process.wait()
    raise SystemExit("the bare jupyter lab does not answer")


def _socket(home: Path, notebook: str) -> str:
    """Jupyter's own socket, as the gateway finds it."""
    for record in (home / "compute" / "instances").glob("*/instance.json"):
        text = record.read_text()
        if f'"account": "{notebook}"' in text:
            return httpx.Response(200, text=text).json()["sockets"]["jupyter"]
    raise SystemExit("there is no instance of the notebook")


def _compare_answers(through: Any, straight: Any, count: int) -> None:
    kernels = {"straight": straight.kernel(), "through the gateway": through.kernel()}
    times: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(count):
        for name, kernel in kernels.items():
            began = time.monotonic()
            kernel.run("pass")
            times[name].append(1000 * (time.monotonic() - began))
    print(f"a kernel's answer, {count} each way; ms")
    for name, values in times.items():
        print(f"{name:20} p50 {statistics.median(values):6.2f}   p99 {statistics.quantiles(values, n=100)[98]:6.2f}")
    added = statistics.median(times["through the gateway"]) - statistics.median(times["straight"])
    print(f"added by the gateway (p50): {added:.2f} ms   goal 2.00")


def _start_together(platform: _Side, hub: Hub | None, count: int) -> None:
    before = platform.processor_seconds()
    seconds, spread, made = _together(count, lambda name: platform.created(name, PAUSE_SECONDS))
    used = platform.processor_seconds() - before
    times = "processor seconds"
    print(f"{count} at once: platform, all ready after {seconds:.1f} s (first {spread[0]:.1f} s), {used:.1f} {times}")
    for notebook, _ in made:
        platform.client.notebooks.delete(notebook)
    while platform.client.notebooks.list():
        time.sleep(0.2)
    if hub is not None:
        before = hub.processor_seconds()
        hub_seconds, spread, _ = _together(count, lambda name: (name, hub.start(name, PAUSE_SECONDS)))
        hub_used = hub.processor_seconds() - before
        print(
            f"{count} at once: JupyterHub, all ready after {hub_seconds:.1f} s (first {spread[0]:.1f} s), {hub_used:.1f} {times}"
        )
        print(
            f"platform / JupyterHub: {seconds / hub_seconds:.2f} by the clock, {used / hub_used:.2f} in {times}   goal 0.50"
        )


def _together(
    count: int, start: Callable[[str], tuple[str, float]]
) -> tuple[float, list[float], list[tuple[str, float]]]:
    """How long all took, each, and what was started."""
    began = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        made = [each.result() for each in [pool.submit(start, f"t{number}") for number in range(count)]]
    return time.monotonic() - began, sorted(each[1] for each in made), made


if __name__ == "__main__":
    main()
