"""What the gateway costs: latency added at a fixed rate, requests per second, and how soon a route change is seen.

    python bench/gateway.py [--rate 1000] [--seconds 5] [--rounds 3] [--routes 1,1000]

The same tiny server is asked directly, through a bare Envoy (one route, no log, no filters: the floor), and through the gateway, in turns, so
that whatever else the machine does falls on all three. At the fixed rate requests are sent on time whether or not answers have come
(an open loop); a latency counts from the moment that the request should have been sent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.process import envoy_binary
from modelyard.gateway.backends.envoy.settings import EnvoySettings, ListenAddress
from modelyard.gateway.port import Route, Rule, Target, Upstream
from modelyard.testing.ports import free_port

TARGET_ADDED_SECONDS = 0.0004
BODY = b'{"predictions": [[0.1, 0.2, 0.7]]}'
QUESTION = b'{"instances": [[5.1,3.5,1.4,0.2]]}\n'
REQUEST = (
    b"POST /bench/inference HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(QUESTION), QUESTION)
)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Origin(asyncio.Protocol):
    """The cheapest server that Python can be: it answers each request without looking at it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0 and len(self._rest) >= end + 4 + len(QUESTION):
            self._rest = self._rest[end + 4 + len(QUESTION) :]
            self._transport.write(ANSWER)  # type: ignore[attr-defined]  # it is a stream's transport


async def serve(path: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    unix = await loop.create_unix_server(Origin, path, backlog=2048)
    tcp = await loop.create_server(Origin, "127.0.0.1", port, backlog=2048)
    async with unix, tcp:
        await asyncio.Event().wait()


class Connection(asyncio.Protocol):
    """One keep-alive connection of the client; free again when its answer is complete."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.is_broken = self._load.is_running

    def ask(self, due_at: float) -> None:
        self._due_at = due_at
        self._transport.write(REQUEST)  # type: ignore[attr-defined]  # it is a stream's transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or len(self._received) < end + 4 + len(BODY):
            return
        if not self._received.startswith(b"HTTP/1.1 200"):
            self._load.is_broken = True
        self._received = b""
        self._load.answered(self, time.perf_counter() - self._due_at)


class Load:
    """Requests on many connections, at a fixed rate or as fast as answers come."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.is_running = True
        self.is_broken = False
        self._free: deque[Connection] = deque()
        self._late: deque[float] = deque()
        self._again = False

    async def connect(self, port: int, count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
            self._free.append(connection)

    async def at_rate(self, rate: float, seconds: float) -> None:
        start = time.perf_counter()
        for number in range(int(rate * seconds)):
            due_at = start + number / rate
            while (now := time.perf_counter()) < due_at:
                await asyncio.sleep(due_at - now if due_at - now > 0.002 else 0)
            if self._free:
                self._free.popleft().ask(due_at)
            else:
                self._late.append(due_at)
        await asyncio.sleep(0.2)

    async def at_most(self, seconds: float) -> None:
        self._again = True
        while self._free:
            self._free.popleft().ask(time.perf_counter())
        await asyncio.sleep(seconds)
        self._again = False
        await asyncio.sleep(0.2)

    def answered(self, connection: Connection, seconds: float) -> None:
        self.latencies.append(seconds)
        if self._late:
            connection.ask(self._late.popleft())
        elif self._again:
            connection.ask(time.perf_counter())
        else:
            self._free.append(connection)

    def close(self) -> None:
        self.is_running = False
        for connection in self._free:
            connection._transport.close()  # the two belong together


async def measure(port: int, *, rate: float | None, seconds: float, connections: int) -> list[float]:
    load = Load()
    await load.connect(port, connections)
    await (load.at_most(seconds) if rate is None else load.at_rate(rate, seconds))
    load.close()
    if load.is_broken or not load.latencies:
        raise SystemExit(f"requests failed on port {port} ({len(load.latencies)} answers came)")
    return load.latencies


def bare_configuration(port: int, path: str, admin: str) -> str:
    """The least that Envoy needs to route one prefix to a Unix socket."""
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": path}}}}
    return json.dumps(
        {
            "admin": {"address": {"pipe": {"path": admin}}},
            "static_resources": {
                "listeners": [
                    {
                        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                    }
                ],
                "clusters": [
                    {
                        "name": "origin",
                        "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [endpoint]}]},
                    }
                ],
            },
        }
    )


@contextlib.asynccontextmanager
async def process(command: list[str], port: int) -> AsyncIterator[int]:
    # In a session of its own, as the gateway's Envoy is: the kernel shares processors between sessions first.
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)
        yield child.pid
    finally:
        child.kill()
        child.wait()


def bench_route(id: str, prefix: str, path: str) -> Route:
    rules = (
        Rule("/inference", ("main",), rewrite="/v1/models/iris:predict"),
        Rule("/", ("main",), is_prefix=True, rewrite="/"),
    )
    return Route(id, prefix, rules, (Upstream("main", (Target(path),)),), max_body_bytes=1 << 20)


def processor_seconds(pid: int | None) -> float:
    """User and system time of a process so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def compare(places: dict[str, int], pids: dict[str, int | None], options: argparse.Namespace) -> None:
    at_rate: dict[str, list[float]] = {name: [] for name in places}
    at_most: dict[str, list[float]] = {name: [] for name in places}
    spent: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(options.rounds):
        for name, port in places.items():
            at_rate[name] += await measure(port, rate=options.rate, seconds=options.seconds, connections=32)
        for name, port in places.items():
            before = processor_seconds(pids[name])
            answers = await measure(port, rate=None, seconds=options.seconds / 2, connections=32)
            spent[name].append((processor_seconds(pids[name]) - before) / len(answers))
            at_most[name].append(len(answers) / (options.seconds / 2))
    floor = statistics.median(at_rate["direct"])
    print(f"\nopen loop at {options.rate:g} requests/s, {options.rounds} rounds of {options.seconds:g} s")
    print("then as fast as 32 connections go, with the processor time that the process spends on each request")
    print(f"{'':12}{'p50 ms':>9}{'p99 ms':>9}{'added p50 ms':>14}{'requests/s':>12}{'CPU µs':>9}")
    for name, latencies in at_rate.items():
        middle, high = statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]
        row = f"{name:12}{middle * 1e3:9.3f}{high * 1e3:9.3f}{(middle - floor) * 1e3:14.3f}"
        print(f"{row}{statistics.median(at_most[name]):12.0f}{statistics.median(spent[name]) * 1e6:9.1f}")
    added = statistics.median(at_rate["gateway"]) - floor
    verdict = "reached" if added <= TARGET_ADDED_SECONDS else "MISSED"
    print(f"p50 added by the gateway: {added * 1e3:.3f} ms (at most {TARGET_ADDED_SECONDS * 1e3:g} ms: {verdict})")


async def changes(gateway: EnvoyGateway, port: int, path: str, counts: list[int]) -> None:
    print("\nroute changes: put_route until every worker serves it, on top of so many other routes")
    titles = (("routes", 8), ("p50 ms", 9), ("max ms", 9), ("list ms", 9), ("first put s", 13), ("Envoy MB", 10))
    print("".join(f"{title:>{width}}" for title, width in titles))
    for count in counts:
        started_at = time.perf_counter()
        await asyncio.gather(
            *(gateway.put_route(bench_route(f"r{n}", f"/more/{n}", f"{path}.{n}")) for n in range(count))
        )
        first = time.perf_counter() - started_at
        times: list[float] = []
        for number in range(100 if count <= 1000 else 5):
            started_at = time.perf_counter()
            await gateway.put_route(bench_route("changing", f"/changing/{number}", f"{path}.{number % 2}"))
            times.append(time.perf_counter() - started_at)
            answers = await measure(port, rate=None, seconds=0, connections=1)
            assert answers
        started_at = time.perf_counter()
        await gateway.list_routes()
        listing = time.perf_counter() - started_at
        resident = int(Path(f"/proc/{gateway.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
        print(
            f"{count:8}{statistics.median(times) * 1e3:9.1f}{max(times) * 1e3:9.1f}{listing * 1e3:9.0f}{first:13.2f}{resident:10.0f}"
        )


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        directory = Path(name)
        path = str(directory / "origin.sock")
        places = {place: free_port() for place in ("direct", "bare Envoy", "gateway")}
        settings = EnvoySettings(directory / "gw", (ListenAddress(port=places["gateway"]),), https=())
        bare = directory / "bare.json"
        bare.write_text(bare_configuration(places["bare Envoy"], path, str(directory / "bare.sock")))
        origin = [sys.executable, __file__, "--serve", path, str(places["direct"])]
        envoy = [
            str(envoy_binary(settings)),
            "-c",
            str(bare),
            "--concurrency",
            str(settings.workers),
            "--disable-hot-restart",
        ]
        gateway = EnvoyGateway(settings)
        async with process(origin, places["direct"]) as origin_pid, process(envoy, places["bare Envoy"]) as bare_pid:
            await gateway.start()
            try:
                await gateway.put_route(bench_route("bench", "/bench", path))
                await compare(places, {"direct": origin_pid, "bare Envoy": bare_pid, "gateway": gateway.pid}, options)
                await changes(gateway, places["gateway"], path, [int(count) for count in options.routes.split(",")])
            finally:
                await gateway.stop()
    print(f"\n{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(serve(sys.argv[2], int(sys.argv[3])))
    else:
        parser = argparse.ArgumentParser(description="What the gateway costs.")
        parser.add_argument("--rate", type=float, default=1000, help="requests per second of the open loop")
        parser.add_argument("--seconds", type=float, default=5, help="length of a round")
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument(
            "--routes", default="1,1000", help="numbers of other routes for the change times, with commas"
        )
        uvloop.run(main(parser.parse_args()))
