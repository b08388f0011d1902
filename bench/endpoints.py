"""From a wish to an answer: how long an endpoint takes from its creation, and from rest, to its first answer; and what gateway and model server add
to the call in the model's own process.

A real platform serves an Iris network, as ONNX graph and as SavedModel, on `c2.c1m1`. `added` is the median of requests over one keep-alive
connection to the front door's HTTP, less the median of the same prediction by the runtime alone in a process of its own, and less the client's own
share: what the same client takes to ask a program that answers at once without looking. All are asked in turns and the best counts. A prediction
of `--pause` after another finds processors asleep, as most do on a machine with little to do.

    python bench/endpoints.py [--formats ONNX TENSORFLOW] [--rounds 3] [--requests 300] [--pause 0]
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
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from platform_home import running_platform

from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.resources.endpoints.schemas import AutoScaler
from modelyard.resources.images.catalog import choose_image, load_catalog, to_environment
from modelyard.sdk.client import Client
from serving import BODY, MAKE_MODEL

FLAVOR = "c2.c1m1"
SOURCES = Path(__file__).parents[1] / "src"

# Without the `onnx` package: the few bytes of protocol buffers that a graph of one Gemm and one Softmax takes.
MAKE_ONNX = """
import struct, sys
from pathlib import Path
def number(value):
    out = b""
    while True:
        value, low = value >> 7, value & 127
        out += bytes([low | (128 if value else 0)])
        if not value:
            return out
def field(tag, value):
    if isinstance(value, int):
        return number(tag << 3) + number(value)
    value = value.encode() if isinstance(value, str) else value
    return number(tag << 3 | 2) + number(len(value)) + value
def tensor(name, *shape):
    count = 1
    for size in shape:
        count *= size
    data = struct.pack(f"<{count}f", *((index % 7 - 3) / 5 for index in range(count)))
    return b"".join(field(1, size) for size in shape) + field(2, 1) + field(8, name) + field(9, data)
def value(name, width):
    shape = field(1, field(2, "n")) + field(1, field(1, width))
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))
def node(kind, inputs, output):
    return b"".join(field(1, each) for each in inputs) + field(2, output) + field(4, kind)
graph = field(1, node("Gemm", ("x", "w", "b"), "z")) + field(1, node("Softmax", ("z",), "y")) + field(2, "g")
graph += field(5, tensor("w", 4, 3)) + field(5, tensor("b", 3)) + field(11, value("x", 4)) + field(12, value("y", 3))
place = Path(sys.argv[1])
place.mkdir()
(place / "model.onnx").write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 13)))
"""

ALONE = """
import sys, time, statistics
import numpy as np
from modelyard.serving.config import ServingConfig
from modelyard.serving.find import find_artifact
from modelyard.serving.load import _RUNTIMES
from importlib import import_module
from pathlib import Path
config = ServingConfig(model_dir=sys.argv[1], model_name="iris", cpus=1)
artifact = find_artifact(Path(config.model_dir), config.format)
runtime = import_module(f"modelyard.serving.runtimes.{_RUNTIMES[artifact.kind][0]}").open_model(artifact.path, config)
signature = runtime.signatures[runtime.default_signature]
inputs = {spec.name: np.array([[6.8, 2.8, 4.8, 1.4]], np.float32) for spec in signature.inputs}
taken = []
for _ in range(int(sys.argv[2])):
    started = time.perf_counter()
    runtime.predict(signature, inputs)
    taken.append(time.perf_counter() - started)
print(statistics.median(taken))
"""


# Answers each request, which must come in one piece, with a body as long as the model's.
AT_ONCE = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
answer = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: 60\\r\\n\\r\\n" + b"x" * 60
while True:
    connection, _ = listener.accept()
    while connection.recv(65536):
        connection.sendall(answer)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="+", default=["ONNX", "TENSORFLOW"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--pause", type=float, default=0.0, help="milliseconds between requests")
    options = parser.parse_args()
    with running_platform() as (client, connection), tempfile.TemporaryDirectory() as directory:
        client.storage.create_container("bench")
        for code in options.formats:
            python = _python(client, Path(connection.ca_file or "").parent.parent / "environments", code)
            model = Path(directory) / code
            _run(python, MAKE_ONNX if code == "ONNX" else MAKE_MODEL, str(model))
            client.storage.upload(model, f"bench/{code}")
            client.models.create(code, format=code, artifact=f"bench/{code}")
            door = urlsplit(connection.api_url).netloc
            created = [
                _first_answer(client, door, code, is_last=turn == options.rounds - 1) for turn in range(options.rounds)
            ]
            woken = [_from_rest(client, door, code) for _ in range(options.rounds)]
            time.sleep(5)  # after a rest the route leads through the activator for a moment
            through, own, alone = (
                min(times)
                for times in zip(
                    *(_added(client, door, code, python, model, options) for _ in range(options.rounds)), strict=True
                )
            )
            print(
                f"{code}: create to 200 {min(created):.2f} s (of {options.rounds}: {_listed(created)}), from rest to 200 {min(woken):.2f} s "
                f"({_listed(woken)}), p50 {through * 1000:.2f} ms through the gateway, {alone * 1000:.3f} ms alone, "
                f"{own * 1000:.2f} ms the client's own: added {(through - alone - own) * 1000:.2f} ms",
                flush=True,
            )
            client.endpoints.delete(code, wait=True, timeout_seconds=60)


def _first_answer(client: Client, door: str, code: str, *, is_last: bool) -> float:
    started = time.perf_counter()
    client.endpoints.create(code, models=code, flavor=FLAVOR)
    client.endpoints.wait(code, timeout_seconds=120)
    _asker(client, door, code)()
    taken = time.perf_counter() - started
    if not is_last:
        client.endpoints.delete(code, wait=True, timeout_seconds=60)
    return taken


def _from_rest(client: Client, door: str, code: str) -> float:
    stage = f"{code}/default"
    client.stages.scale(stage, AutoScaler(enable=True, min_node_count=0, idle_seconds=1))
    while (shown := client.stages.find(stage)).status_reason != "AT_REST" or shown.running_pod_count:
        time.sleep(0.1)
    client.stages.scale(stage, AutoScaler(enable=True, min_node_count=0, idle_seconds=600))
    ask = _asker(client, door, code)
    started = time.perf_counter()
    ask()
    return time.perf_counter() - started


def _added(
    client: Client, door: str, code: str, python: Path, model: Path, options: argparse.Namespace
) -> tuple[float, float, float]:
    """Seconds through the gateway, of the client alone, and of the runtime alone; medians, one after the other."""
    through = _median(_asker(client, door, code), options.requests, options.pause / 1000)
    with subprocess.Popen([sys.executable, "-c", AT_ONCE], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None  # it is a pipe
            own = _median(
                _asking(f"127.0.0.1:{int(program.stdout.readline())}", "/", code),
                options.requests,
                options.pause / 1000,
            )
        finally:
            program.kill()
    return through, own, float(_run(python, ALONE, str(model), str(options.requests)))


def _asker(client: Client, door: str, code: str) -> Callable[[], None]:
    """Asks the endpoint once, over a connection that stays."""
    path = urlsplit(
        f"//{client.stages.find(f'{code}/default').endpoint_model_list[0].apigw_endpoint_uri.partition('//')[2]}"
    ).path
    return _asking(door, path, code)


def _asking(door: str, path: str, code: str) -> Callable[[], None]:
    connection = http.client.HTTPConnection(door, timeout=90)

    def ask() -> None:
        connection.request("POST", path, BODY, {"content-type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{code}: {answer.status} {body.decode()}")

    return ask


def _median(ask: Callable[[], None], count: int, pause_seconds: float) -> float:
    for _ in range(20):
        ask()
    taken: list[float] = []
    for _ in range(count):
        if pause_seconds:
            time.sleep(pause_seconds)
        started = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _python(client: Client, root: Path, code: str) -> Path:
    image = choose_image(load_catalog(), code)
    if image is None:
        raise SystemExit(f"the catalogue has no {code} image")
    client.images.build(image.name)
    client.images.wait(image.name)
    return EnvironmentStore(root).python(to_environment(image))


def _run(python: Path, source: str, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [str(python), "-c", source, *arguments],
        check=True,
        env=environment | {"PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return done.stdout


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


if __name__ == "__main__":
    main()
