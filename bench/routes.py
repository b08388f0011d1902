"""Route changes under load: what fails (nothing may), and how long a change takes on top of many endpoints.

    python bench/routes.py [--rate 1000] [--changes 1000] [--swaps 100] [--endpoints 10,100,1000] [--at-once 20]

Endpoints are as the platform makes them: a route of the endpoint's own and one of its stage. While requests come at a fixed rate (an open loop),
endpoints are changed one after the other and several at once; then the default stage of the endpoint that is under load is swapped
again and again, and each answer must come from exactly one of the two stages, from the moment of the change on from the new one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from gateway import BODY, QUESTION, REQUEST, Connection, Load
from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.settings import EnvoySettings, ListenAddress
from modelyard.gateway.port import Route
from modelyard.resources.endpoints.instances import Part, ServingSettings, endpoint_route, stage_route
from modelyard.resources.endpoints.model import EndpointModelSpec
from modelyard.resources.routes.reconciler import gateway_route
from modelyard.testing.ports import free_port

SERVING = ServingSettings()
VERSIONS = (b"A", b"B")


class Version(asyncio.Protocol):
    """A model server that answers with its version, in a body as long as the usual one."""

    def __init__(self, version: bytes) -> None:
        body = version * len(BODY)
        self._answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0 and len(self._rest) >= end + 4 + len(QUESTION):
            self._rest = self._rest[end + 4 + len(QUESTION) :]
            self._transport.write(self._answer)  # type: ignore[attr-defined]  # it is a stream's transport


class Watched(Connection):
    """A connection that looks at what it is answered."""

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" in data:
            body = data.rpartition(b"\r\n\r\n")[2]
            if body and any(byte != body[0] for byte in body):
                self._load.is_broken = True
        super().data_received(data)


class WatchedLoad(Load):
    """Load whose answers must each be of one version."""

    async def connect(self, port: int, count: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, connection = await loop.create_connection(lambda: Watched(self), "127.0.0.1", port)
            self._free.append(connection)


def routes_of(name: str, prefix: str, address: str) -> tuple[Route, Route]:
    """The two routes of an endpoint whose only model server is at this address."""
    spec = EndpointModelSpec(
        model_id=f"model-{name}", model_name=f"iris-{name}", format_code="ONNX", artifact_uri="", image_id="image"
    )
    models, addresses = [(f"model-{name}", spec)], {f"model-{name}": (address,)}
    part = Part(weight=1, models=models, addresses=addresses)
    own = stage_route(f"stage-{name}", name, f"{prefix}/blue", models, addresses, SERVING, {"endpoint": name})
    return (
        gateway_route(f"endpoint-{name}", endpoint_route(f"endpoint-{name}", name, prefix, [part], SERVING)),
        gateway_route(f"stage-{name}", own),
    )


async def change_for(gateway: EnvoyGateway, count: int, at_once: int, total: int) -> list[float]:
    """So many changes of endpoints, `at_once` at a time; how long each took."""
    times: list[float] = []
    gate = asyncio.Semaphore(at_once)

    async def change(number: int) -> None:
        async with gate:
            route = routes_of(
                str(number % count), f"/gateway/{number % count}", f"/moved/{count}/{at_once}/{number}.sock"
            )[0]
            started_at = time.perf_counter()
            await gateway.put_route(route)
            times.append(time.perf_counter() - started_at)

    await asyncio.gather(*(change(number) for number in range(total)))
    return times


async def swap(gateway: EnvoyGateway, port: int, sockets: dict[bytes, str], count: int) -> list[float]:
    """So many changes of the stage that answers; the answers after each must all be the new one's."""
    times: list[float] = []
    asking = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    for number in range(count):
        version = VERSIONS[number % 2]
        started_at = time.perf_counter()
        await gateway.put_route(routes_of("bench", "/bench", sockets[version])[0])
        times.append(time.perf_counter() - started_at)
        for reader, writer in asking:
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(len(BODY))
            if not head.startswith(b"HTTP/1.1 200") or body != version * len(BODY):
                raise SystemExit(f"after swap {number} an answer was {head[:16]!r} {body[:4]!r}, not {version!r}")
    for _, writer in asking:
        writer.close()
    return times


async def under_load(port: int, rate: float, work: asyncio.Task[list[float]]) -> tuple[list[float], int]:
    """The work's times, and how many requests were answered meanwhile. Ends the program when one failed."""
    answers = 0
    while not work.done():
        load = WatchedLoad()
        await load.connect(port, 32)
        await load.at_rate(rate, 1.0)
        load.close()
        if load.is_broken:
            raise SystemExit("a request failed")
        answers += len(load.latencies)
    return await work, answers


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        directory, port = Path(name), free_port()
        sockets = {version: str(directory / f"{version.decode()}.sock") for version in VERSIONS}
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_unix_server(lambda v=version: Version(v), path, backlog=2048)
            for version, path in sockets.items()
        ]
        settings = EnvoySettings(directory / "gw", (ListenAddress(port=port),), https=(), confirm_seconds=60)
        gateway = EnvoyGateway(settings)
        await gateway.start()
        try:
            for route in routes_of("bench", "/bench", sockets[b"A"]):
                await gateway.put_route(route)
            print(f"open loop at {options.rate:g} requests/s; no request failed, or this ends here")
            print(f"{'endpoints':>10}{'at once':>9}{'changes':>9}{'s':>7}{'p50 ms':>9}{'max ms':>9}{'answers':>9}")
            for count in [int(text) for text in options.endpoints.split(",")]:
                routes = [
                    item for n in range(count) for item in routes_of(str(n), f"/gateway/{n}", f"/nowhere/{n}.sock")
                ]
                await asyncio.gather(*(gateway.put_route(route) for route in routes))
                for at_once, total in ((1, min(options.changes, 20)), (options.at_once, options.changes)):
                    started_at = time.perf_counter()
                    work = asyncio.create_task(change_for(gateway, count, at_once, total))
                    times, answers = await under_load(port, options.rate, work)
                    spent = time.perf_counter() - started_at
                    middle, most = statistics.median(times) * 1e3, max(times) * 1e3
                    print(f"{count:10}{at_once:9}{total:9}{spent:7.1f}{middle:9.1f}{most:9.1f}{answers:9}", flush=True)
                work = asyncio.create_task(swap(gateway, port, sockets, options.swaps))
                times, answers = await under_load(port, options.rate, work)
                row = f"{count:10}{'swap':>9}{options.swaps:9}{'':7}{statistics.median(times) * 1e3:9.1f}"
                print(f"{row}{max(times) * 1e3:9.1f}{answers:9}", flush=True)
        finally:
            await gateway.stop()
            for server in servers:
                server.close()
    print(f"\n{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Route changes under load.")
    parser.add_argument("--rate", type=float, default=1000, help="requests per second of the open loop")
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--swaps", type=int, default=100, help="changes of the default stage")
    parser.add_argument("--endpoints", default="10,100,1000", help="numbers of endpoints, with commas")
    parser.add_argument("--at-once", type=int, default=20, help="changes under way at the same time")
    uvloop.run(main(parser.parse_args()))
