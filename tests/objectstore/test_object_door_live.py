"""The door as a real server process: clients that break off, a full disk, memory, kill -9."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelyard.testing.ports import free_port

pytestmark = pytest.mark.slow

SERVE = """
import asyncio, resource, socket, sys
from pathlib import Path
import uvicorn
from starlette.applications import Starlette
from modelyard.db.engine import Database, sqlite_url
from modelyard.objectstore.access import Principal
from modelyard.objectstore.backends.local.blobs import DirectoryBlobs
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.backends.local.tables import metadata
from modelyard.server.doors.objects import ObjectDoor, object_routes

home, port, file_limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if file_limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

async def authorize(token):
    return Principal("tenant", "owner")

async def main():
    database = Database(sqlite_url(home / "index.db"))
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    door = ObjectDoor(LocalStore(database, DirectoryBlobs(home / "blobs")), authorize)
    listener = socket.create_server(("127.0.0.1", port))
    await uvicorn.Server(uvicorn.Config(Starlette(routes=object_routes(door)), log_level="warning")).serve([listener])

asyncio.run(main())
"""


@dataclass
class Server:
    home: Path
    port: int
    process: subprocess.Popen[bytes]

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, f"/v1/AUTH_tenant{path}", body, {"X-Auth-Token": "x", **(headers or {})})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def begin_put(self, path: str, length: int, sent: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        head = f"PUT /v1/AUTH_tenant{path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: x\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + sent)
        return connection

    def blob_files(self) -> list[Path]:
        return [path for path in (self.home / "blobs").rglob("*") if path.is_file()]

    def memory_bytes(self, what: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(what)


Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def begin(file_limit: int = 0) -> Server:
        port = free_port()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", SERVE, str(tmp_path), str(port), str(file_limit)]
        server = Server(tmp_path, port, subprocess.Popen(command, env=environment))
        servers.append(server)
        wait_until(lambda: is_listening(port), 30)
        return server

    yield begin
    for server in servers:
        server.process.kill()
        server.process.wait(timeout=20)


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_client_that_breaks_off_leaves_nothing(start: Start) -> None:
    server = start()
    server.ask("PUT", "/c")
    server.ask("PUT", "/c/o", b"old")
    connection = server.begin_put("/c/o", 50_000_000, b"x" * 5_000_000)
    wait_until(lambda: len(server.blob_files()) == 2, 20)
    connection.close()
    wait_until(lambda: len(server.blob_files()) == 1, 20)
    assert server.ask("GET", "/c/o") == (200, b"old")


def test_full_disk_answers_507_and_leaves_nothing(start: Start) -> None:
    server = start(file_limit=3_000_000)
    server.ask("PUT", "/c")
    server.ask("PUT", "/c/o", b"old")
    assert server.ask("PUT", "/c/o", b"x" * 6_000_000)[0] == 507
    assert len(server.blob_files()) == 1
    assert server.ask("GET", "/c/o") == (200, b"old")
    assert server.ask("PUT", "/c/p", b"still works")[0] == 201


def test_memory_stays_constant_both_ways(start: Start) -> None:
    server = start()
    server.ask("PUT", "/c")
    server.ask("PUT", "/c/warm", b"x" * 3_000_000)
    server.ask("GET", "/c/warm")
    before = server.memory_bytes("VmRSS")
    piece, count = os.urandom(1_000_000), 200
    connection = server.begin_put("/c/big", len(piece) * count, b"")
    digest = hashlib.md5()
    for _ in range(count):
        connection.sendall(piece)
        digest.update(piece)
    assert b" 201 " in connection.recv(1000)
    connection.close()
    reader = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    reader.request("GET", "/v1/AUTH_tenant/c/big", headers={"X-Auth-Token": "x"})
    response, received = reader.getresponse(), hashlib.md5()
    time.sleep(1.0)  # a slow reader: what it does not take must wait on disk, not in the server
    while part := response.read(1_000_000):
        received.update(part)
    reader.close()
    assert received.digest() == digest.digest()
    assert server.memory_bytes("VmHWM") - before < 50_000_000


def test_expectation_is_answered_before_the_body(start: Start) -> None:
    server = start()
    for path, said in (("/nowhere/o", b" 404 "), ("/c/o", b" 100 ")):
        server.ask("PUT", "/c")
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        head = f"PUT /v1/AUTH_tenant{path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert said in connection.recv(1000).split(b"\r\n")[0] + b" "
        if b"100" in said:
            connection.sendall(b"abc")
            assert b" 201 " in connection.recv(1000)
        connection.close()
    assert server.ask("GET", "/c/o") == (200, b"abc")


def test_killed_during_uploads_keeps_what_was_answered(start: Start) -> None:
    server = start()
    server.ask("PUT", "/c")
    for number in range(20):
        assert server.ask("PUT", f"/c/o{number}", b"%d" % number * 100)[0] == 201
    connections = [server.begin_put(f"/c/o{number}", 9_000_000, b"x" * 4_000_000) for number in range(5)]
    wait_until(lambda: len(server.blob_files()) == 25, 20)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(timeout=20)
    for connection in connections:
        connection.close()
    again = start()
    for number in range(20):
        assert again.ask("GET", f"/c/o{number}") == (200, b"%d" % number * 100)
    assert again.ask("GET", "/c")[1].count(b"\n") == 20
