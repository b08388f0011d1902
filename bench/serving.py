"""The model server on the Iris network, beside a bare ASGI application on the same HTTP library, in one run.

The floor answers a constant and does nothing else; it is what any Python model server on this library starts from. Both are
asked the same request over keep-alive connections of a Unix socket, in turns, and the best turn of each counts, so that what else the
machine does disturbs both alike. Rates are requests per second.

    python bench/serving.py --python PATH_OF_AN_ENVIRONMENT_WITH_TENSORFLOW_AND_GRANIAN
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
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src"
BODY = b'{"instances": [[6.8, 2.8, 4.8, 1.4]]}'
START_SECONDS = 120.0

MAKE_MODEL = """
import sys, tensorflow as tf
model = tf.keras.Sequential([tf.keras.layers.Input((4,)), tf.keras.layers.Dense(16, activation="relu"),
                             tf.keras.layers.Dense(3, activation="softmax")])
(model.save if tf.__version__.startswith("2.15") else model.export)(sys.argv[1])
"""

FLOOR = """
import asyncio, signal, sys
from pathlib import Path
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

ANSWER = b'{"predictions":[[0.023706093,0.007252447,0.96904147]]}'
HEADERS = [(b"content-type", b"application/json")]

async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})

async def main():
    server = Server(app, uds=Path(sys.argv[1]), interface=Interfaces.ASGINL, websockets=False,
                    http=HTTPModes.http1, log_level=LogLevels.error)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
    await server.serve()

asyncio.run(main())
"""


@dataclass(frozen=True)
class Figure:
    """One turn: requests per second, median and 99th percentile of the latency (ms), and the server's processor time (µs a request)."""

    rate: float
    p50: float
    p99: float
    processor: float


class Client(asyncio.Protocol):
    """One keep-alive connection that sends the next request when the last is answered, and notes how long each took."""

    def __init__(self, request: bytes, until: float, seconds: list[float]) -> None:
        self._request = request
        self._until = until
        self._seconds = seconds
        self._received = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.closed.set_exception(RuntimeError(self._received.decode()))
            return
        now = time.perf_counter()
        self._seconds.append(now - self._sent_at)
        self._received = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


async def turn(socket: Path, pid: int, connections: int, seconds: float) -> Figure:
    """Ask with so many connections for so long."""
    used = processor_seconds(pid)
    request = b"POST /v1/models/iris:predict HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    request += b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    taken: list[float] = []
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients: list[Client] = []
    for _ in range(connections):
        _, client = await loop.create_unix_connection(lambda: Client(request, started + seconds, taken), str(socket))
        clients.append(client)
    await asyncio.gather(*(client.closed for client in clients))
    rate = len(taken) / (time.perf_counter() - started)
    ordered = sorted(taken)
    used = (processor_seconds(pid) - used) / len(taken) * 1e6
    return Figure(rate, statistics.median(ordered) * 1000, ordered[int(len(ordered) * 0.99)] * 1000, used)


def processor_seconds(pid: int) -> float:
    """What a process has used so far, in user and in system mode (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        probe = subprocess.run(
            ["curl", "-sf", "--unix-socket", str(path), "-d", BODY.decode(), "http://bench/v1/models/iris:predict"],
            capture_output=True,
        )
        if probe.returncode == 0:
            return
        time.sleep(0.1)
    raise SystemExit(f"{path.name} did not come up")


def measure(python: Path, seconds: float, rounds: int, place: Path) -> None:
    """Start both, ask both in turns, print the figures."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(SOURCES), "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [str(python), "-c", MAKE_MODEL, str(place / "model")], check=True, env=environment, capture_output=True
    )
    sockets = {"floor": place / "floor.sock", "server": place / "server.sock"}
    config = {
        "model_dir": str(place / "model"),
        "model_name": "iris",
        "listen": str(sockets["server"]),
        "report_path": "",
    }
    (place / "serving.json").write_text(json.dumps(config))
    commands = {
        "floor": [str(python), "-c", FLOOR, str(sockets["floor"])],
        "server": [str(python), "-m", "modelyard.serving", "--config", str(place / "serving.json")],
    }
    processes = {
        name: subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        for name, command in commands.items()
    }
    try:
        for name, process in processes.items():
            wait_for(sockets[name], process)
        print(f"{'connections':>11} {'':>7} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'cpu µs/req':>11}")
        for connections in (1, 8, 64):
            figures: dict[str, list[Figure]] = {"floor": [], "server": []}
            for _ in range(rounds):
                for name, socket in sockets.items():
                    figures[name].append(asyncio.run(turn(socket, processes[name].pid, connections, seconds)))
            best = {name: max(turns, key=lambda figure: figure.rate) for name, turns in figures.items()}
            for name, figure in best.items():
                print(
                    f"{connections:>11} {name:>7} {figure.rate:>8.0f} {figure.p50:>8.3f} {figure.p99:>8.3f} {figure.processor:>11.0f}"
                )
            added = best["server"].p50 - best["floor"].p50
            print(f"{'':>11} {'ratio':>7} {best['server'].rate / best['floor'].rate:>8.2f}   p50 {added:+.3f} ms")
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            process.wait(timeout=30)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description="Throughput and latency of the model server beside a bare ASGI floor.")
    parser.add_argument(
        "--python", type=Path, required=True, help="the interpreter of an environment with TensorFlow and granian"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns for each number of connections")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as directory:
        measure(arguments.python, arguments.seconds, arguments.rounds, Path(directory))


if __name__ == "__main__":
    main()
