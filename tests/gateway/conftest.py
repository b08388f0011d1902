"""A real server to route to, and a real Envoy in front of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.settings import EnvoySettings, ListenAddress
from modelyard.gateway.certificates import ensure_certificates
from modelyard.gateway.port import Route, Rule, Target, Upstream
from modelyard.testing.ports import free_port


@dataclass
class Origin:
    """An HTTP/1.1 server that tells what it was asked. What it does follows the last segment of the path that it sees."""

    name: str
    address: str
    requests: list[str] = field(default_factory=list)
    breaks: bool = False
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def target(self) -> Target:
        return Target(self.address)

    async def open(self) -> None:
        if self.address.startswith("/"):
            self._server = await asyncio.start_unix_server(self._serve, self.address)
        else:
            host, _, port = self.address.rpartition(":")
            self._server = await asyncio.start_server(self._serve, host, int(port))

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._answer(reader, writer):
                pass
        except (EOFError, OSError, asyncio.LimitOverrunError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        self.requests.append(f"{method} {path}")
        if headers.get("upgrade") == "websocket":
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
            return False
        if self.breaks or path.endswith("/break"):
            return False
        if path.endswith("/hang"):
            await asyncio.sleep(3600)
        body_bytes = await self._read_body(reader, writer, headers)
        if path.endswith("/slow"):
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(20):
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(0.1)
            writer.write(b"0\r\n\r\n")
            return True
        seen = {"name": self.name, "method": method, "path": path, "headers": headers, "body_bytes": body_bytes}
        content = json.dumps(seen).encode()
        status = b"500 Internal Server Error" if path.endswith("/500") else b"200 OK"
        length = f"content-length: {len(content)}\r\n\r\n".encode()
        writer.write(
            b"HTTP/1.1 "
            + status
            + b"\r\ncontent-type: application/json\r\n"
            + length
            + (b"" if method == "HEAD" else content)
        )
        await writer.drain()
        return True

    async def _read_body(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str]
    ) -> int:
        total = 0
        if headers.get("expect") == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                total += len(await reader.readexactly(size))
                await reader.readline()
            await reader.readline()
            return total
        left = int(headers.get("content-length", "0"))
        while left:
            chunk = await reader.read(min(left, 65536))
            if not chunk:
                raise EOFError
            left -= len(chunk)
            total += len(chunk)
        return total


StartOrigin = Callable[..., Awaitable[Origin]]


@pytest.fixture
def port() -> Callable[[], int]:
    """Makes numbers of free ports."""
    return free_port


@pytest.fixture
async def start_origin(tmp_path: Path) -> AsyncIterator[StartOrigin]:
    """Starts servers: on a Unix socket, or with `tcp=True` on a port."""
    async with AsyncExitStack() as stack:

        async def start(name: str = "one", *, tcp: bool = False) -> Origin:
            origin = Origin(name, f"127.0.0.1:{free_port()}" if tcp else str(tmp_path / f"{name}.sock"))
            await origin.open()
            stack.push_async_callback(origin.close)
            return origin

        yield start


@pytest.fixture
def settings(tmp_path: Path) -> EnvoySettings:
    certificates = ensure_certificates(tmp_path / "tls")
    return EnvoySettings(
        tmp_path / "gw",
        http=(ListenAddress(port=free_port()),),
        https=(ListenAddress(port=free_port()),),
        certificate=certificates.certificate,
        key=certificates.key,
        guards=(tmp_path / "guard.sock",),
        worker_count=2,
        linger_seconds=1.0,
    )


@pytest.fixture
async def gateway(settings: EnvoySettings) -> AsyncIterator[EnvoyGateway]:
    """A gateway that serves, with its Envoy ended afterwards whatever happened."""
    gateway = EnvoyGateway(settings)
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


@pytest.fixture
async def client(settings: EnvoySettings) -> AsyncIterator[httpx.AsyncClient]:
    """Calls the HTTP listener."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.http[0].port}", timeout=20) as client:
        yield client


def simple_route(id: str, prefix: str, *targets: Target, rewrite: str | None = None, **more: object) -> Route:
    return Route(
        id,
        prefix,
        rules=(Rule("/", ("main",), is_prefix=True, rewrite=rewrite),),
        upstreams=(Upstream("main", tuple(targets)),),
        **more,  # type: ignore[arg-type]  # fields of Route
    )


@pytest.fixture
def make_route() -> Callable[..., Route]:
    """Makes routes of one rule for everything below a prefix."""
    return simple_route
