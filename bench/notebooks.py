"""Creating a notebook → its page is usable, beside a bare `jupyter lab` of the same image; several at once; a kernel's answer through the gateway.

    python bench/notebooks.py [--count 5] [--together 20] [--calls 200]

The two starts take turns, so that load on the machine meets both alike. Both times end when `GET /lab` is answered: the bare one's begins with
its process, the platform's with the call that creates the notebook, and it includes the way through the front door with a one-time code. Goals: at
most 1.1 times the bare start (p50); all of those together ready, at most 40 s for 20 on 2 cores; a kernel's answer through the gateway at most 2 ms
later (p50) than straight from Jupyter's socket.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from platform_home import free_port, running_platform

from modelyard.compute.backends.local.build import build_environment
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.resources.images.catalog import load_catalog, to_environment
from modelyard.sdk.client import Client

sys.path.append(str(Path(__file__).parent.parent / "tests" / "journeys"))
_Jupyter: Any = import_module("journey_jupyter").Jupyter  # the tests' WebSocket client

IMAGE = "Ubuntu 22.04 CPU Python Notebook"
WAIT_SECONDS = 600.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=5, help="how many starts of each")
    parser.add_argument("--together", type=int, default=20, help="how many notebooks at once; 0 leaves that out")
    parser.add_argument("--calls", type=int, default=200, help="how many answers of a kernel, each way")
    asked = parser.parse_args()
    image = _image()
    times: dict[str, list[float]] = {"bare jupyter lab": [], "platform": []}
    with running_platform() as (client, connection):
        door = ("127.0.0.1", urlsplit(connection.api_url).port or 0)
        home = Path(str(connection.ca_file)).parent.parent
        first, _ = _created(client, door, "first")  # what is done once for a platform
        for number in range(asked.count):
            times["bare jupyter lab"].append(_bare(image))
            notebook, seconds = _created(client, door, f"n{number}")
            times["platform"].append(seconds)
            client.notebooks.delete(notebook, wait=True)
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {asked.count} starts of each; seconds")
        for name, values in times.items():
            print(f"{name:18} p50 {statistics.median(values):5.2f}   min {min(values):5.2f}   max {max(values):5.2f}")
        ratio = statistics.median(times["platform"]) / statistics.median(times["bare jupyter lab"])
        print(f"ratio (p50): {ratio:.2f}   goal 1.10")
        _compare_answers(_opened(client, door, first), _Jupyter(_socket(home, first)), asked.calls)
        client.notebooks.delete(first, wait=True)
        if asked.together:
            _start_together(client, door, asked.together)


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


def _created(client: Client, door: tuple[str, int], name: str) -> tuple[str, float]:
    """A notebook's id, and how long it took until its page was there."""
    began = time.monotonic()
    made = client.notebooks.create(name, image=IMAGE, flavor="m2.c1m2", boot_storage_size=10, data_storage_size=10)
    while client.notebooks.get(made.id).notebook_status_code != "ACTIVE_HEALTHY":
        if time.monotonic() > began + WAIT_SECONDS:
            raise SystemExit(f"the notebook {name} does not start")
        time.sleep(0.02)
    jupyter = _opened(client, door, made.id)
    status, _ = jupyter.call("GET", "/lab")
    if status != 200:
        raise SystemExit(f"the page of {name} is answered with {status}")
    return made.id, time.monotonic() - began


def _opened(client: Client, door: tuple[str, int], notebook: str) -> Any:
    code = urlsplit(client.notebooks.open(notebook).url)
    connection = http.client.HTTPConnection(*door)
    connection.request("GET", f"{code.path}?{code.query}", headers={"Host": code.netloc})
    cookie = connection.getresponse().headers["set-cookie"].split(";")[0]
    connection.close()
    return _Jupyter(door, code.netloc, Cookie=cookie)


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


def _start_together(client: Client, door: tuple[str, int], count: int) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        made = [
            each.result() for each in [pool.submit(_created, client, door, f"t{number}") for number in range(count)]
        ]
    seconds = sorted(each[1] for each in made)
    print(
        f"{count} at once: all ready after {time.monotonic() - began:.1f} s (first {seconds[0]:.1f} s)   goal 40 s for 20"
    )
    for notebook, _ in made:
        client.notebooks.delete(notebook)


if __name__ == "__main__":
    main()
