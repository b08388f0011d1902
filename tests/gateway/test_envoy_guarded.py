"""Guarded routes on a real Envoy: who decides, what the target sees, how open connections end, and that nothing passes when nobody can be asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from modelyard.gateway.backends.envoy.gateway import EnvoyGateway
from modelyard.gateway.backends.envoy.settings import EnvoySettings
from modelyard.gateway.port import Access, GatewayRefused, Route, Target

pytestmark = pytest.mark.slow

MakeRoute = Callable[..., Route]
ACCESS = Access("project", "notebook", "n1")
LETS_PASS = (
    b"HTTP/1.1 200 OK\r\nx-modelyard-user: ann\r\nx-envoy-auth-headers-to-remove: cookie, x-modelyard-access\r\n"
    b"content-length: 0\r\n\r\n"
)
SENDS_AWAY = (
    b"HTTP/1.1 302 Found\r\nlocation: http://main/open\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n"
    b"content-type: text/html; charset=utf-8\r\ncontent-length: 9\r\n\r\n<p>go</p>"
)


@dataclass
class Guard:
    """Answers what it is told to, and remembers what it was asked."""

    answer: bytes = LETS_PASS
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
                writer.write(self.answer)
        except (EOFError, OSError):
            writer.close()


@pytest.fixture
async def guard(settings: EnvoySettings) -> AsyncIterator[Guard]:
    guard = Guard()
    server = await asyncio.start_unix_server(guard.serve, settings.guards[0])
    yield guard
    server.close()


async def websocket(
    settings: EnvoySettings, path: str, *headers: str
) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a WebSocket; the first line of the answer, and the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.http[0].port)
    lines = "".join(f"{header}\r\n" for header in headers)
    writer.write(
        f"GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        f"sec-websocket-version: 13\r\n{lines}\r\n".encode()
    )
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    return head.split("\r\n")[0], reader, writer


async def chunks() -> AsyncIterator[bytes]:
    yield b"x"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"hello")
    async with asyncio.timeout(10):
        return await reader.readexactly(5)


async def test_the_guard_is_told_and_what_it_says_is_done(
    gateway: EnvoyGateway, client: httpx.AsyncClient, guard: Guard, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("n1", "/n1", origin.target, access=ACCESS, timeout_seconds=0.0))
    spoofed = {
        "x-modelyard-user": "root",
        "x-modelyard-access": "other/notebook/n2",
        "cookie": "secret=1",
        "origin": "http://evil",
    }
    seen = (await client.post("/n1/x?q=1", headers=spoofed, content=b"12345")).json()
    assert (seen["path"], seen["body_bytes"], seen["headers"]["x-modelyard-user"]) == ("/n1/x?q=1", 5, "ann")
    assert not {"cookie", "x-modelyard-access"} & seen["headers"].keys()
    assert guard.asked[-1].startswith("POST /n1/x?q=1 HTTP/1.1\r\n")
    for line in (
        "x-modelyard-access: project/notebook/n1",
        "cookie: secret=1",
        "origin: http://evil",
        "x-forwarded-proto: http",
    ):
        assert f"\r\n{line}\r\n" in guard.asked[-1]
    guard.answer = SENDS_AWAY
    answer = await client.get("/n1/x")
    assert (answer.status_code, answer.headers["location"], answer.text) == (302, "http://main/open", "<p>go</p>")
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert origin.requests == ["POST /n1/x?q=1"]


async def test_other_routes_ask_nobody(
    gateway: EnvoyGateway, client: httpx.AsyncClient, guard: Guard, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("open", "/open", origin.target))
    assert (await client.get("/open/x")).status_code == 200
    assert guard.asked == []


async def test_nothing_passes_while_nobody_can_be_asked(
    gateway: EnvoyGateway, settings: EnvoySettings, client: httpx.AsyncClient, start_origin, make_route: MakeRoute
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("n1", "/n1", origin.target, access=ACCESS, max_body_bytes=1000))
    answer = await client.get("/n1/x")
    assert (answer.status_code, answer.json()["header"]["resultCode"], answer.headers["retry-after"]) == (
        503,
        503905,
        "2",
    )
    assert (await client.post("/n1/x", content=chunks())).status_code == 503  # the entry that holds bodies
    line, _, writer = await websocket(settings, "/n1/ws")
    assert line == "HTTP/1.1 503 Service Unavailable"
    writer.close()
    guard = Guard(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")
    server = await asyncio.start_unix_server(guard.serve, settings.guards[0])
    assert (await client.get("/n1/x")).status_code == 503
    guard.answer = LETS_PASS
    assert (await client.get("/n1/x")).status_code == 200
    server.close()
    assert origin.requests == ["GET /n1/x"]


async def test_another_epoch_ends_the_open_websockets_of_that_route_alone(
    gateway: EnvoyGateway, settings: EnvoySettings, guard: Guard, start_origin, make_route: MakeRoute
) -> None:
    one, two = await start_origin("one"), await start_origin("two")
    routes = {
        name: make_route(name, f"/{name}", origin.target, access=replace(ACCESS, target_id=name), timeout_seconds=0.0)
        for name, origin in (("one", one), ("two", two))
    }
    for route in routes.values():
        await gateway.put_route(route)
    sockets = {name: await websocket(settings, f"/{name}/ws", "sec-websocket-key: x") for name in routes}
    for line, reader, writer in sockets.values():
        assert line == "HTTP/1.1 101 Switching Protocols"
        assert await echo(reader, writer) == b"hello"
    assert "sec-websocket-version: 13" in guard.asked[0]
    await gateway.put_route(replace(routes["one"], access=Access("project", "notebook", "one", epoch=1)))
    async with asyncio.timeout(10):
        assert await sockets["one"][1].read() == b""
    assert await echo(*sockets["two"][1:]) == b"hello"
    line, reader, writer = await websocket(settings, "/one/ws")  # who may still pass comes back
    assert await echo(reader, writer) == b"hello"
    await gateway.remove_route("one")
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    for _, _, each in sockets.values():
        each.close()
    writer.close()


async def test_many_changes_with_requests_on_the_way_lose_none(
    gateway: EnvoyGateway, client: httpx.AsyncClient, guard: Guard, start_origin, make_route: MakeRoute
) -> None:
    origins = [await start_origin(str(number)) for number in range(2)]
    await gateway.put_route(make_route("n1", "/n1", origins[0].target, access=ACCESS))
    codes: list[int] = []
    is_over = asyncio.Event()

    async def ask() -> None:
        while not is_over.is_set():
            codes.append((await client.get("/n1/x")).status_code)

    asking = asyncio.create_task(ask())
    for number in range(6):
        await gateway.put_route(
            make_route("n1", "/n1", origins[number % 2].target, access=replace(ACCESS, epoch=number))
        )
    is_over.set()
    await asking
    assert set(codes) == {200}


async def test_a_gateway_without_guards_takes_no_guarded_route(
    settings: EnvoySettings, tmp_path: Path, make_route: MakeRoute
) -> None:
    gateway = EnvoyGateway(replace(settings, guards=()))
    await gateway.start()
    try:
        with pytest.raises(GatewayRefused, match="needs a guard"):
            await gateway.put_route(make_route("n1", "/n1", Target("/x"), access=ACCESS))
        await gateway.put_route(make_route("n2", "/n2", Target("/x")))
    finally:
        await gateway.stop()


async def test_guarded_routes_come_back_guarded(
    gateway: EnvoyGateway,
    settings: EnvoySettings,
    client: httpx.AsyncClient,
    guard: Guard,
    start_origin,
    make_route: MakeRoute,
) -> None:
    origin = await start_origin()
    await gateway.put_route(make_route("n1", "/n1", origin.target, access=ACCESS))
    await gateway.stop()
    again = EnvoyGateway(settings)
    await again.start()
    try:
        assert (await client.get("/n1/x")).status_code == 200
        guard.answer = SENDS_AWAY
        assert (await client.get("/n1/x")).status_code == 302
    finally:
        await again.stop()


@pytest.mark.parametrize("word", ["", "a b", "a/b", "a\r\nx: y", "x" * 101])
async def test_what_can_not_be_told_in_a_header_is_refused(
    gateway: EnvoyGateway, make_route: MakeRoute, word: str
) -> None:
    with pytest.raises(GatewayRefused, match="in its access"):
        await gateway.put_route(make_route("n1", "/n1", Target("/x"), access=Access("p", "notebook", word)))
