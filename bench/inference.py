"""Gateway and model server together on a small network, beside a bare ASGI application and, for ONNX, beside peers in the same run.

A real platform serves the model on two endpoints, one whose instance type has one core, and so one process, as the peers have, and one with two
of each; requests go through Envoy's HTTP door to the replica. The floor is a constant answer of a bare
ASGI application on the model server's HTTP library, asked directly over its Unix socket. Peers serve the same graph and are asked directly,
over TCP on the loopback, each set up as its own documentation shows (one worker). All take turns; the best turn of each counts. Peers are
stopped (SIGSTOP) while others have their turn, since some work without being asked.

    python bench/inference.py [--format TENSORFLOW] [--seconds 3] [--rounds 3]
    python bench/inference.py --format ONNX --tools PYTHON_WITH_ONNX [--litserve PYTHON] [--kserve PYTHON] [--mlserver DIRECTORY_OF_ITS_PROGRAMS]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from formats import KSERVE, LITSERVE, MAKE, over_tcp, request
from platform_home import running_platform

from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.resources.images.catalog import choose_image, load_catalog, to_environment
from modelyard.sdk.client import Client as Modelyard
from modelyard.testing.ports import free_port
from serving import BODY, FLOOR, MAKE_MODEL, Client, wait_for

Connect = Callable[[Callable[[], Client]], Awaitable[Client]]
START_SECONDS = 120.0
ENDPOINTS = {"platform": "c2.c1m1", "platform-2": "m2.c2m4"}
"""Instance types by what is measured on them: with one core and with two."""

MLSERVER = """
import numpy as np, onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
class Iris(MLModel):
    async def load(self):
        self.session = ort.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
        return True
    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        output = NumpyCodec.encode_output("y", self.session.run(None, {"x": rows})[0])
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
V2_BODY = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[6.8,2.8,4.8,1.4]}]}'


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=["TENSORFLOW", "ONNX"], default="TENSORFLOW")
    parser.add_argument("--tools", type=Path, help="interpreter with onnx and numpy, for the ONNX graph")
    parser.add_argument("--litserve", type=Path, help="interpreter with litserve and onnxruntime")
    parser.add_argument("--kserve", type=Path, help="interpreter with kserve and onnxruntime")
    parser.add_argument("--mlserver", type=Path, help="directory of the program mlserver, with onnxruntime beside it")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.format == "ONNX" and options.tools is None:
        parser.error("an ONNX graph needs --tools")
    with ExitStack() as stack:
        client, connection = stack.enter_context(running_platform())
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        python = _python(client, Path(connection.ca_file or "").parent.parent / "environments", options.format)
        if options.format == "ONNX":
            _run([options.tools, "-c", MAKE, place])
        else:
            _run([python, "-c", MAKE_MODEL, place / "small"])
        client.storage.create_container("bench")
        client.storage.upload(place / "small", "bench/model")
        created = client.models.create("iris", format=options.format, artifact="bench/model")
        paths = {name: _deploy(client, created.model_id, name, flavor) for name, flavor in ENDPOINTS.items()}
        path = paths["platform"]
        floor_socket = place / "floor.sock"
        wait_for(floor_socket, stack.enter_context(_running([python, "-c", FLOOR, floor_socket], place)))
        peers: dict[str, subprocess.Popen[bytes]] = {}
        subjects = {
            "floor": (_to_socket(floor_socket), request(path, BODY)),
        }
        for name, its_path in paths.items():
            subjects[name] = (_to_gateway(connection.api_url), request(its_path, BODY))
        if options.format == "ONNX":
            graph = place / "small" / "model.onnx"
            for name, source in (("litserve", LITSERVE), ("kserve", KSERVE)):
                program: Path | None = getattr(options, name)
                if program is not None:
                    port = free_port()
                    (place / f"peer_{name}.py").write_text(source)
                    command = [program, place / f"peer_{name}.py", graph, port]
                    peers[name] = stack.enter_context(_running(command, place))
                    subjects[name] = (over_tcp(port), request("/v1/models/m:predict", BODY))
            if options.mlserver is not None:
                port = _prepare_mlserver(place / "mlserver", graph)
                command = [options.mlserver / "mlserver", "start", "."]
                peers["mlserver"] = stack.enter_context(_running(command, place / "mlserver"))
                subjects["mlserver"] = (over_tcp(port), request("/v2/models/m/infer", V2_BODY))
        for name, (connect, asked) in subjects.items():
            asyncio.run(_wait_for(name, connect, asked))
        _compare(subjects, peers, options)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _run(command: list[object]) -> None:
    subprocess.run([str(word) for word in command], check=True, env=_environment(), stderr=subprocess.DEVNULL)


@contextmanager
def _running(command: list[object], place: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = Path(str(command[0]))
    environment = {**_environment(), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    with (place / f"{program.parent.parent.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=environment,
            cwd=place,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGTERM)
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
        finally:
            with suppress(ProcessLookupError):  # LitServe leaves workers behind
                os.killpg(process.pid, signal.SIGKILL)


def _prepare_mlserver(place: Path, graph: Path) -> int:
    """Write what MLServer reads; the port that it will answer on."""
    place.mkdir()
    port, grpc_port, metrics_port = free_port(), free_port(), free_port()
    (place / "iris.py").write_text(MLSERVER)
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    (place / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0}))
    model = {"name": "m", "implementation": "iris.Iris", "parameters": {"uri": str(graph)}}
    (place / "model-settings.json").write_text(json.dumps(model))
    return port


async def _wait_for(name: str, connect: Connect, asked: bytes) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            await _turn(connect, asked, 1, 0.05)
        except (OSError, RuntimeError, statistics.StatisticsError) as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} did not come up: {error}") from None
            await asyncio.sleep(0.2)
        else:
            return


def _python(client: Modelyard, root: Path, framework: str) -> Path:
    """The interpreter of the framework's default image, built if it is not there."""
    image = choose_image(load_catalog(), framework)
    if image is None:
        raise SystemExit(f"the catalogue has no {framework} image")
    client.images.build(image.name)
    client.images.wait(image.name)
    return EnvironmentStore(root).python(to_environment(image))


def _deploy(client: Modelyard, model_id: str, name: str, flavor: str) -> str:
    """Put the model on an endpoint; the path that it answers on."""
    endpoint = client.endpoints.create(name, models=model_id, flavor=flavor)
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


@contextmanager
def _awake(peer: subprocess.Popen[bytes] | None) -> Iterator[None]:
    if peer is not None:
        os.killpg(peer.pid, signal.SIGCONT)
    yield
    if peer is not None:
        os.killpg(peer.pid, signal.SIGSTOP)


def _compare(
    subjects: dict[str, tuple[Connect, bytes]],
    peers: dict[str, subprocess.Popen[bytes]],
    options: argparse.Namespace,
) -> None:
    for peer in peers.values():
        os.killpg(peer.pid, signal.SIGSTOP)
    print(f"{'connections':>11} {'':>10} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8}   load {os.getloadavg()[0]:.1f}")
    for connections in options.connections:
        best: dict[str, tuple[float, float, float]] = {}
        for _ in range(options.rounds):
            for name, (connect, asked) in subjects.items():
                with _awake(peers.get(name)):
                    figure = asyncio.run(_turn(connect, asked, connections, options.seconds))
                best[name] = max(best.get(name, (0.0, 0.0, 0.0)), figure)
        for name, (rate, p50, p99) in best.items():
            print(f"{connections:>11} {name:>10} {rate:>8.0f} {p50:>8.3f} {p99:>8.3f}")
        for name, other in best.items():
            if name not in ENDPOINTS:
                ratios = " and ".join(f"{best[own][0] / other[0]:.2f} ×" for own in ENDPOINTS)
                print(f"{'':>11} {ratios} {name}   p50 {best['platform'][1] - other[1]:+.3f} ms")


async def _turn(connect: Connect, asked: bytes, connections: int, seconds: float) -> tuple[float, float, float]:
    """Requests per second, median and 99th percentile in milliseconds."""
    taken: list[float] = []
    started = time.perf_counter()
    clients = [await connect(lambda: Client(asked, started + seconds, taken)) for _ in range(connections)]
    await asyncio.gather(*(client.closed for client in clients))
    rate = len(taken) / (time.perf_counter() - started)
    ordered = sorted(taken)
    return rate, statistics.median(ordered) * 1000, ordered[int(len(ordered) * 0.99)] * 1000


if __name__ == "__main__":
    main()
