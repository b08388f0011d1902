"""Puts and gets of small objects and of a large one, beside plain files with the same guarantees, and beside a Swift if one is given.

    python bench/objectstore.py [--directory DIR] [--small 300] [--large-mib 512]
                                [--swift http://host:port/v1/AUTH_x --swift-token TOKEN]

The floor of a small put is what one durable write costs here: a new file, synced, and its directory synced. The store does that and one
durable transaction. All clients use one kept-alive connection unless it says otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette

from modelyard.db.engine import Database, sqlite_url
from modelyard.objectstore.access import Principal
from modelyard.objectstore.backends.local.blobs import DirectoryBlobs
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.backends.local.tables import metadata
from modelyard.server.doors.objects import ObjectDoor, object_routes

SMALL = os.urandom(4096)
PIECE = os.urandom(1024 * 1024)
CLIENTS = 8


class Door:
    """A store at a URL of an account."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.account = parts.hostname or "", parts.port or 80, parts.path
        self.token = token
        self.connection = self.connect()

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=300)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, method: str, path: str, body: object = None, length: int | None = None) -> int:
        headers = {"X-Auth-Token": self.token}
        if length is not None:
            headers["Content-Length"] = str(length)
        self.connection.request(method, self.account + path, body, headers)  # type: ignore[arg-type]  # http.client takes any iterable of bytes
        response = self.connection.getresponse()
        size = 0
        while piece := response.read(len(PIECE)):
            size += len(piece)
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {response.status}")
        return size

    def max_file_mib(self) -> int:
        self.connection.request("GET", "/info")
        return int(json.loads(self.connection.getresponse().read())["swift"]["max_file_size"]) // len(PIECE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--directory", type=Path, help="where to write (default: a temporary directory)")
    parser.add_argument("--small", type=int, default=300)
    parser.add_argument("--large-mib", type=int, default=512)
    parser.add_argument("--swift")
    parser.add_argument("--swift-token", default="")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(Path(options.serve[0]), int(options.serve[1])))
        return
    with tempfile.TemporaryDirectory(dir=options.directory) as place:
        floor = measure_files(Path(place) / "files", options.small, options.large_mib)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        server = subprocess.Popen([sys.executable, __file__, "--serve", f"{place}/store", str(port)])
        try:
            wait(port)
            ours = measure_door(Door(f"http://127.0.0.1:{port}/v1/AUTH_bench", "x"), options.small, options.large_mib)
        finally:
            server.terminate()
            server.wait(timeout=30)
    report("Modelyard's object store", ours, floor)
    if options.swift:
        report(
            "OpenStack Swift",
            measure_door(Door(options.swift, options.swift_token), options.small, options.large_mib),
            floor,
        )


def measure_files(place: Path, count: int, large_mib: int) -> dict[str, float]:
    """The floor: plain files, each synced with its directory."""
    place.mkdir()
    folder = os.open(place, os.O_RDONLY)

    def put(name: str, pieces: int, piece: bytes) -> None:
        with (place / name).open("xb") as file:
            for _ in range(pieces):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.fsync(folder)

    def get(name: str) -> None:
        with (place / name).open("rb") as file:
            while file.read(len(PIECE)):
                pass

    found = {
        "small put ms": median_ms(count, lambda number: put(f"s{number}", 1, SMALL)),
        "small get ms": median_ms(count, lambda number: get(f"s{number}")),
        "large put ms/MiB": seconds(lambda: put("large", large_mib, PIECE)) / large_mib * 1000,
        "large get ms/MiB": seconds(lambda: get("large")) / large_mib * 1000,
    }
    with ThreadPoolExecutor(CLIENTS) as pool:
        found[f"small puts/s, {CLIENTS} at once"] = count / seconds(
            lambda: list(pool.map(lambda number: put(f"p{number}", 1, SMALL), range(count)))
        )
    os.close(folder)
    return found


def measure_door(door: Door, count: int, large_mib: int) -> dict[str, float]:
    """The same through HTTP."""
    large_mib = min(large_mib, door.max_file_mib())
    door.ask("PUT", "/bench")
    door.ask("PUT", "/bench/warm", SMALL)
    found = {
        "small put ms": median_ms(count, lambda number: door.ask("PUT", f"/bench/s{number}", SMALL)),
        "small get ms": median_ms(count, lambda number: door.ask("GET", f"/bench/s{number}")),
        "large put ms/MiB": seconds(lambda: put_large(door, large_mib)) / large_mib * 1000,
        "large get ms/MiB": seconds(lambda: door.ask("GET", "/bench/large")) / large_mib * 1000,
    }
    url = f"http://{door.host}:{door.port}{door.account}"
    doors = [Door(url, door.token) for _ in range(CLIENTS)]

    def work(client: int) -> None:
        for number in range(client, count, CLIENTS):
            doors[client].ask("PUT", f"/bench/p{number}", SMALL)

    with ThreadPoolExecutor(CLIENTS) as pool:
        found[f"small puts/s, {CLIENTS} at once"] = count / seconds(lambda: list(pool.map(work, range(CLIENTS))))
    return found


def put_large(door: Door, large_mib: int) -> None:
    door.ask("PUT", "/bench/large", (PIECE for _ in range(large_mib)), large_mib * len(PIECE))


def report(name: str, found: dict[str, float], floor: dict[str, float]) -> None:
    print(f"{name} beside plain synced files ({len(SMALL)} bytes small)")
    for what, value in found.items():
        print(f"  {what:28} {value:10.2f}   files {floor[what]:10.2f}   ratio {value / floor[what]:6.2f}")


def median_ms(count: int, act: Callable[[int], object]) -> float:
    return statistics.median(seconds(partial(act, number)) for number in range(count)) * 1000


def seconds(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def wait(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


async def serve(home: Path, port: int) -> None:
    """The store as the product serves it, without the gateway in front."""
    home.mkdir()
    database = Database(sqlite_url(home / "index.db"))
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)

    async def authorize(token: str | None) -> Principal | None:
        return Principal("bench", "owner") if token else None

    app = Starlette(routes=object_routes(ObjectDoor(LocalStore(database, DirectoryBlobs(home / "blobs")), authorize)))
    await uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", loop="uvloop")).serve()


if __name__ == "__main__":
    main()
