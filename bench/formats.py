"""The model server on ONNX graphs, beside a bare ASGI application that runs the same graph, and beside peers, in one run.

Two models: a small one (Iris, logistic regression, one row as V1 JSON) and one that computes (three layers of 1,024, 32 rows as raw V2
tensors). The floor reads the body, runs the graph by ONNX Runtime and writes the answer, with nothing around it. All are asked over
keep-alive connections in turns, and the best turn of each counts, so that what else the machine does disturbs all alike.

    python bench/formats.py --python ENVIRONMENT_OF_THE_ONNX_IMAGE --tools ENVIRONMENT_WITH_ONNX
        [--litserve PYTHON] [--kserve PYTHON] [--seconds 2] [--rounds 3]

Peers are asked directly over TCP on the loopback, each as its own documentation shows (one worker); they take the small model only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.testing.ports import free_port
from serving import Client

SOURCES = Path(__file__).parents[1] / "src"
START_SECONDS = 120.0
CONNECTIONS = (1, 8, 64)
ROWS, WIDTH = 32, 1024

MAKE = """
import sys, numpy as np, onnx
from pathlib import Path
from onnx import TensorProto, helper, numpy_helper
place = Path(sys.argv[1])
rng = np.random.default_rng(7)
def save(name, widths, last):
    nodes, weights, at = [], [], "x"
    for index, (rows, columns) in enumerate(zip(widths, widths[1:])):
        weights += [numpy_helper.from_array((rng.standard_normal((rows, columns)) / rows ** 0.5).astype(np.float32), f"w{index}"),
                    numpy_helper.from_array(np.zeros(columns, np.float32), f"b{index}")]
        is_last = index == len(widths) - 2
        nodes += [helper.make_node("Gemm", [at, f"w{index}", f"b{index}"], [f"z{index}"]),
                  helper.make_node(last if is_last else "Relu", [f"z{index}"], ["y" if is_last else f"a{index}"])]
        at = f"a{index}"
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
    graph = helper.make_graph(nodes, "g", [value("x", widths[0])], [value("y", widths[-1])], weights)
    (place / name).mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(place / name / "model.onnx"))
save("small", (4, 3), "Softmax")
save("large", (1024, 1024, 1024, 1024), "Relu")
"""

FLOOR = """
import asyncio, signal, sys, numpy as np, orjson, onnxruntime as ort
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server
model, place, kind = sys.argv[1:]
options = ort.SessionOptions()
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
pool = ThreadPoolExecutor(2)

def small(body):
    rows = np.array(orjson.loads(body)["instances"], np.float32)
    return orjson.dumps({"predictions": session.run(None, {"x": rows})[0]}, option=orjson.OPT_SERIALIZE_NUMPY)

def large(body):
    rows = np.frombuffer(body, "<f4", offset=len(body) - 32 * 1024 * 4).reshape(32, 1024)
    return session.run(None, {"x": rows})[0].tobytes()

async def app(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message.get("more_body")
    answer = small(body) if kind == "small" else await asyncio.get_running_loop().run_in_executor(pool, large, body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(answer)).encode())]})
    await send({"type": "http.response.body", "body": answer})

async def main():
    server = Server(app, uds=Path(place), interface=Interfaces.ASGINL, websockets=False, http=HTTPModes.http1, log_level=LogLevels.error)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    await server.serve()
asyncio.run(main())
"""

LITSERVE = """
import sys, numpy as np, onnxruntime as ort, litserve as ls
class Iris(ls.LitAPI):
    def setup(self, device):
        self.session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    def decode_request(self, request):
        return np.array(request["instances"], np.float32)
    def predict(self, rows):
        return self.session.run(None, {"x": rows})[0]
    def encode_response(self, output):
        return {"predictions": output.tolist()}
if __name__ == "__main__":
    ls.LitServer(Iris(api_path="/v1/models/m:predict"), accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")
"""

KSERVE = """
import sys, numpy as np, onnxruntime as ort
from kserve import Model, ModelServer
class Iris(Model):
    def __init__(self):
        super().__init__("m")
        self.session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
        self.ready = True
    async def predict(self, payload, headers=None, response_headers=None):
        return {"predictions": self.session.run(None, {"x": np.array(payload["instances"], np.float32)})[0].tolist()}
ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1).start([Iris()])
"""


@dataclass(frozen=True)
class Subject:
    """What is asked: how to connect to it, and its request for each model that it takes."""

    name: str
    connect: Callable[[Callable[[], Client]], Awaitable[Client]]
    requests: dict[str, bytes]


@dataclass(frozen=True)
class Figure:
    """Requests per second, and the median and the 99th percentile of the latency (ms)."""

    rate: float
    p50: float
    p99: float


def request(path: str, body: bytes, headers: str = "content-type: application/json") -> bytes:
    """A whole HTTP request."""
    return f"POST {path} HTTP/1.1\r\nhost: bench\r\n{headers}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def small_request() -> bytes:
    """One Iris row."""
    return request("/v1/models/m:predict", b'{"instances":[[6.8,2.8,4.8,1.4]]}')


def large_request() -> bytes:
    """32 rows of 1,024 as a raw tensor, to be answered raw."""
    raw = struct.pack("<f", 0.25) * (ROWS * WIDTH)
    tensor = {"name": "x", "shape": [ROWS, WIDTH], "datatype": "FP32", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = f"content-type: application/octet-stream\r\ninference-header-content-length: {len(head)}"
    return request("/v2/models/m/infer", head + raw, headers)


async def turn(subject: Subject, model: str, connections: int, seconds: float) -> Figure:
    """Ask with so many connections for so long."""
    taken: list[float] = []
    started = time.perf_counter()
    asked = subject.requests[model]
    clients = [await subject.connect(lambda: Client(asked, started + seconds, taken)) for _ in range(connections)]
    await asyncio.gather(*(client.closed for client in clients))
    ordered = sorted(taken)
    rate = len(taken) / (time.perf_counter() - started)
    return Figure(rate, statistics.median(ordered) * 1000, ordered[int(len(ordered) * 0.99)] * 1000)


def over_unix(place: Path) -> Callable[[Callable[[], Client]], Awaitable[Client]]:
    """Connects to a Unix socket."""

    async def connect(make: Callable[[], Client]) -> Client:
        return (await asyncio.get_running_loop().create_unix_connection(make, str(place)))[1]

    return connect


def over_tcp(port: int) -> Callable[[Callable[[], Client]], Awaitable[Client]]:
    """Connects to a port of the loopback."""

    async def connect(make: Callable[[], Client]) -> Client:
        return (await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port))[1]

    return connect


async def wait_for(subject: Subject, model: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a subject answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            await turn(subject, model, 1, 0.05)
        except (OSError, RuntimeError, statistics.StatisticsError, ZeroDivisionError):
            await asyncio.sleep(0.2)
        else:
            return
    raise SystemExit(f"{subject.name} did not come up: {log.read_text(errors='replace')[-2000:]}")


def measure(options: argparse.Namespace, place: Path) -> None:
    """Start all, ask them in turns, print the figures."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([str(options.tools), "-c", MAKE, str(place)], check=True, env=environment)
    processes: list[subprocess.Popen[bytes]] = []
    subjects: dict[str, list[Subject]] = {"small": [], "large": []}
    bodies = {"small": small_request(), "large": large_request()}

    def start(
        name: str, model: str, command: Sequence[str], connect: Callable[[Callable[[], Client]], Awaitable[Client]]
    ) -> None:
        log = place / f"{name}-{model}.log"
        process = subprocess.Popen(
            command,
            env=environment | {"PYTHONPATH": str(SOURCES) if name == "server" else ""},
            cwd=place,
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
        )
        processes.append(process)
        subject = Subject(name, connect, {model: bodies[model]})
        asyncio.run(wait_for(subject, model, process, log))
        subjects[model].append(subject)

    try:
        for model in subjects:
            graph, sockets = (
                place / model / "model.onnx",
                {name: place / f"{name}-{model}.sock" for name in ("floor", "server")},
            )
            config = {
                "model_dir": str(place / model),
                "model_name": "m",
                "listen": str(sockets["server"]),
                "report_path": "",
            }
            (place / f"{model}.json").write_text(json.dumps(config))
            start(
                "floor",
                model,
                [str(options.python), "-c", FLOOR, str(graph), str(sockets["floor"]), model],
                over_unix(sockets["floor"]),
            )
            serving = [str(options.python), "-m", "modelyard.serving", "--config", str(place / f"{model}.json")]
            start("server", model, serving, over_unix(sockets["server"]))
        for name, python, source in (("litserve", options.litserve, LITSERVE), ("kserve", options.kserve, KSERVE)):
            if python is not None:
                port, script = free_port(), place / f"peer_{name}.py"
                script.write_text(source)
                command = [str(python), str(script), str(place / "small" / "model.onnx"), str(port)]
                start(name, "small", command, over_tcp(port))
        report(subjects, options.seconds, options.rounds)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()


def report(subjects: dict[str, list[Subject]], seconds: float, rounds: int) -> None:
    """All turns and the table."""
    print(f"{'model':>6} {'conns':>6} {'':>9} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'× floor':>8}")
    for model, asked in subjects.items():
        for connections in CONNECTIONS:
            best: dict[str, Figure] = {}
            for _ in range(rounds):
                for subject in asked:
                    figure = asyncio.run(turn(subject, model, connections, seconds))
                    if subject.name not in best or figure.rate > best[subject.name].rate:
                        best[subject.name] = figure
            for name, figure in best.items():
                ratio = figure.rate / best["floor"].rate
                print(
                    f"{model:>6} {connections:>6} {name:>9} {figure.rate:>8.0f} {figure.p50:>8.3f} {figure.p99:>8.3f} {ratio:>8.2f}",
                    flush=True,
                )


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description="The model server on ONNX graphs, beside a bare floor and peers.")
    parser.add_argument(
        "--python", type=Path, required=True, help="interpreter with onnxruntime, granian, orjson, numpy"
    )
    parser.add_argument("--tools", type=Path, required=True, help="interpreter with onnx and numpy")
    parser.add_argument("--litserve", type=Path, help="interpreter with litserve and onnxruntime")
    parser.add_argument("--kserve", type=Path, help="interpreter with kserve and onnxruntime")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns for each number of connections")
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as directory:
        measure(parser.parse_args(), Path(directory))


if __name__ == "__main__":
    main()
