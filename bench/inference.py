"""Gateway and model server together on the Iris network (TensorFlow SavedModel), beside a bare ASGI application in the same run.

A real platform serves the model on an endpoint; requests go through Envoy's HTTP door to the replica. The floor is a constant answer of a bare
ASGI application on the model server's HTTP library, asked directly over its Unix socket. Both take turns; the best turn of each counts.

    python bench/inference.py [--seconds 3] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from platform_home import running_platform

from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.resources.images.catalog import choose_image, load_catalog, to_environment
from modelyard.sdk.client import Client as Modelyard
from serving import BODY, FLOOR, MAKE_MODEL, Client, wait_for

Connect = Callable[[Callable[[], Client]], Awaitable[Client]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with running_platform() as (client, connection), tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        python = _python(client, Path(connection.ca_file or "").parent.parent / "environments")
        subprocess.run([str(python), "-c", MAKE_MODEL, str(place / "model")], check=True, env=environment, stderr=-3)
        url = _deploy(client, place / "model")
        floor_socket = place / "floor.sock"
        floor = subprocess.Popen([str(python), "-c", FLOOR, str(floor_socket)], env=environment)
        try:
            wait_for(floor_socket, floor)
            _compare(_to_gateway(connection.api_url), _to_socket(floor_socket), url, options)
        finally:
            floor.send_signal(signal.SIGTERM)
            floor.wait(timeout=30)


def _python(client: Modelyard, root: Path) -> Path:
    """The interpreter of the default TensorFlow image, built if it is not there."""
    image = choose_image(load_catalog(), "TENSORFLOW")
    if image is None:
        raise SystemExit("the catalogue has no TensorFlow image")
    client.images.build(image.name)
    client.images.wait(image.name)
    return EnvironmentStore(root).python(to_environment(image))


def _deploy(client: Modelyard, model: Path) -> str:
    """Put the model on an endpoint; the path that it answers on."""
    client.storage.create_container("bench")
    client.storage.upload(model, "bench/model")
    created = client.models.create("iris", format="TENSORFLOW", artifact="bench/model")
    endpoint = client.endpoints.create("iris", models=created.model_id, flavor="m2.c2m4")
    ready = client.endpoints.wait(endpoint.endpoint_id)
    return urlsplit(ready.endpoint_stage_list[0].endpoint_model_list[0].apigw_endpoint_uri).path


def _to_gateway(api_url: str) -> Connect:
    parts = urlsplit(api_url)

    async def _connect(make: Callable[[], Client]) -> Client:
        return (await asyncio.get_running_loop().create_connection(make, parts.hostname, parts.port))[1]

    return _connect


def _to_socket(path: Path) -> Connect:
    async def _connect(make: Callable[[], Client]) -> Client:
        return (await asyncio.get_running_loop().create_unix_connection(make, str(path)))[1]

    return _connect


def _compare(gateway: Connect, floor: Connect, path: str, options: argparse.Namespace) -> None:
    print(f"{'connections':>11} {'':>8} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8}   load {os.getloadavg()[0]:.1f}")
    for connections in (1, 8, 64):
        best: dict[str, tuple[float, float, float]] = {}
        for _ in range(options.rounds):
            for name, connect in (("floor", floor), ("platform", gateway)):
                figure = asyncio.run(_turn(connect, path, connections, options.seconds))
                best[name] = max(best.get(name, (0.0, 0.0, 0.0)), figure)
        for name, (rate, p50, p99) in best.items():
            print(f"{connections:>11} {name:>8} {rate:>8.0f} {p50:>8.3f} {p99:>8.3f}")
        ratio = best["platform"][0] / best["floor"][0]
        print(f"{'':>11} {'ratio':>8} {ratio:>8.2f}   p50 {best['platform'][1] - best['floor'][1]:+.3f} ms")


async def _turn(connect: Connect, path: str, connections: int, seconds: float) -> tuple[float, float, float]:
    """Requests per second, median and 99th percentile in milliseconds."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
    )
    request = head.encode() + BODY
    taken: list[float] = []
    started = time.perf_counter()
    clients = [await connect(lambda: Client(request, started + seconds, taken)) for _ in range(connections)]
    await asyncio.gather(*(client.closed for client in clients))
    rate = len(taken) / (time.perf_counter() - started)
    ordered = sorted(taken)
    return rate, statistics.median(ordered) * 1000, ordered[int(len(ordered) * 0.99)] * 1000


if __name__ == "__main__":
    main()
