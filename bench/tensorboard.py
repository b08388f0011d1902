"""Asking for a training's TensorBoard → it answers, beside a bare `tensorboard` of the same installation.

    python bench/tensorboard.py [--count 10]

The two take turns, so that load on the machine meets both alike. The platform's time goes from the call of `client.tensorboards.open` until it has
an address to give: sandbox, route and sign-in code are in it. The bare one's goes from the start of the process until it
answers on its port. Target: about a second, where the bare one needs 0.7 s.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from platform_home import running_platform

from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.resources.tensorboards.instances import environment
from modelyard.sdk.client import Client
from modelyard.testing.ports import free_port

IMAGE = "Ubuntu 22.04 CPU Python 3.11 Training"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10, help="how many starts of each")
    count = parser.parse_args().count
    times: dict[str, list[float]] = {"bare tensorboard": [], "platform": []}
    with running_platform() as (client, connection), tempfile.TemporaryDirectory() as directory:
        training = _training(client, Path(directory))
        client.tensorboards.open(training=training)  # the first one on a platform installs it
        _stop(client, training)
        python = _python()
        for _ in range(count):
            times["bare tensorboard"].append(_bare(python, directory))
            began = time.monotonic()
            client.tensorboards.open(training=training)
            times["platform"].append(time.monotonic() - began)
            _stop(client, training)
    print(f"{connection.api_url}: {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {count} of each; seconds")
    for name, values in times.items():
        print(f"{name:18} p50 {statistics.median(values):5.2f}   min {min(values):5.2f}   max {max(values):5.2f}")
    added = statistics.median(times["platform"]) - statistics.median(times["bare tensorboard"])
    print(f"added by the platform (p50): {added:.2f} s")


def _training(client: Client, directory: Path) -> str:
    (directory / "train.py").write_text("print('done')\n")
    client.storage.upload(directory, "bench/source")
    client.storage.grant("bench", read=["system"], write=["system"])
    made = client.trainings.create(
        "bench",
        new_experiment="bench",
        image=IMAGE,
        flavor="c2.c1m1",
        source="bench/source",
        entry_point="train.py",
        model_upload="bench/output",
    )
    return client.trainings.wait(made.id).id


def _stop(client: Client, training: str) -> None:
    client.tensorboards.stop(training=training)
    while client.tensorboards.get(training=training).tensorboard_status_code != "STOPPED":
        time.sleep(0.05)


def _python() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "modelyard-tests" / "environments"
    return EnvironmentStore(cache).python(environment())


def _bare(python: Path, logdir: str) -> float:
    port = free_port()
    command = (str(python), "-m", "tensorboard.main", "--logdir", logdir, "--port", str(port), "--load_fast", "false")
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/data/environment", trust_env=False).status_code == 200:
                    return time.monotonic() - began
            except httpx.TransportError:
                time.sleep(0.01)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
