"""What is sent on a connection, byte by byte, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.serving.http1 import Request, Server

SECONDS = 20.0
LIMIT = 1000


class TooLarge(Exception):
    pass


class Echo:
    """Answers with what it was asked; `/slow` when it is told to, `/pieces` in pieces, `/unread` without reading."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.asked: list[Request] = []
        self.cancelled = 0

    async def answer(self, request: Request) -> None:
        self.asked.append(request)
        if request.path == "/unread":
            request.respond(413, [("content-type", "text/plain")], b"no")
            return
        try:
            body = await request.read(LIMIT, TooLarge)
        except TooLarge:
            request.respond(413, [], b"too large")
            return
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if request.path == "/slow":
            await self.go_on.wait()
        if request.path == "/pieces":
            await request.respond_in_pieces(200, [], [b"x" * 2**20, memoryview(b"x" * 3 * 2**20).cast("f", (3, 2**18))])
            return
        own = [("x-own", "a\r\nx-smuggled: 1"), ("content-length", "3"), ("bad name", "b"), ("X-Path", request.path)]
        request.respond(200, own, body)


class Line:
    """One connection of a client that writes bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, text: str) -> None:
        self.writer.write(text.encode("latin-1"))

    async def answer(self, *, is_head: bool = False) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")[:-2]
            headers = dict(line.split(": ", 1) for line in lines)
            length = 0 if is_head else int(headers.get("content-length", 0))
            return int(first.split()[1]), headers, await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Echo, Server, Callable[[], asyncio.Future[Line]]]]:
    echo, path = Echo(), str(tmp_path / "s.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    server = Server(echo)
    await server.listen(listener, backlog=10)
    lines: list[Line] = []

    async def dial() -> Line:
        lines.append(Line(*await asyncio.open_unix_connection(path)))
        return lines[-1]

    yield echo, server, dial  # type: ignore[misc]  # a coroutine function is called like one that answers a future
    for line in lines:
        line.writer.close()
    server.stop()
    await server.wait_closed()


async def test_requests_one_after_the_other_on_one_connection(served) -> None:
    echo, _, dial = served
    line = await dial()
    line.send("POST /a%20b/c?q=%41 HTTP/1.1\r\nHost: x\r\nX-A:  1 \r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc")
    status, headers, body = await line.answer()
    assert (status, body, headers["X-Path"]) == (200, b"abc", "/a b/c")
    assert echo.asked[0].headers["x-a"] == "1, 2"
    assert "connection" not in headers
    line.send("GET http://elsewhere/b HTTP/1.1\r\n\r\n")
    assert (await line.answer())[1]["X-Path"] == "/b"


async def test_a_handlers_headers_can_not_frame_the_answer(served) -> None:
    line = await served[2]()
    line.send("GET / HTTP/1.1\r\n\r\n")
    _, headers, _ = await line.answer()
    assert headers["x-own"] == "a  x-smuggled: 1"
    assert headers["content-length"] == "0"
    assert "x-smuggled" not in headers
    assert "bad name" not in headers


async def test_two_requests_at_once_are_answered_in_order(served) -> None:
    echo, _, dial = served
    line = await dial()
    line.send("POST /slow HTTP/1.1\r\ncontent-length: 1\r\n\r\n1POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n2")
    while not echo.asked:
        await asyncio.sleep(0.001)
    assert len(echo.asked) == 1
    echo.go_on.set()
    assert (await line.answer())[2] == b"1"
    assert (await line.answer())[2] == b"2"


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_a_body_in_chunks_cut_anywhere(served, size: int) -> None:
    line = await served[2]()
    text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nx-t: 1\r\n\r\nGET /next HTTP/1.1\r\n\r\n"
    for at in range(0, len(text), size):
        line.send(text[at : at + size])
        await asyncio.sleep(0)
        await line.writer.drain()
    assert (await line.answer())[2] == b"abc0123456789"
    assert (await line.answer())[1]["X-Path"] == "/next"


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("nonsense\r\n\r\n", 400, "not a request"),
        ("GET / HTTP/2.0\r\n\r\n", 400, "not a request"),
        ("GET / HTTP/1.1\r\nx y: 1\r\n\r\n", 400, "not a request"),
        ("GET / HTTP/1.1\r\nx: 1\r\n  folded\r\n\r\n", 400, "not a request"),
        ("GET / HTTP/1.1\r\nx: 1\ny: 2\r\n\r\n", 400, "not a request"),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400, "not a request"),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400, "not a request"),
        ("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", 400, "not a request"),
        ("POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 501, "chunked"),
        ("GET / HTTP/1.1\r\nx: " + "y" * 140_000, 431, "too long"),
    ],
)
async def test_what_is_no_request_is_refused_and_ends_the_connection(
    served, text: str, status: int, words: str
) -> None:
    echo, _, dial = served
    line = await dial()
    line.send(text)
    answered, headers, body = await line.answer()
    assert (answered, headers["connection"]) == (status, "close")
    assert words in body.decode()
    assert await line.rest() == b""
    assert not echo.asked


async def test_chunks_that_make_no_sense_end_the_connection_without_an_answer(served) -> None:
    echo, _, dial = served
    line = await dial()
    line.send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n")
    assert await line.rest() == b""
    assert echo.cancelled == 1


async def test_what_comes_after_a_body_in_chunks_is_no_header_and_has_its_limit(served) -> None:
    echo, _, dial = served
    line = await dial()
    line.send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\ncontent-type: other\r\n\r\n")
    assert (await line.answer())[2] == b"a"
    assert [*echo.asked[0].headers] == ["transfer-encoding"]
    line.send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
    for _ in range(3):
        line.send("x: " + "y" * 140_000 + "\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert await line.rest() == b""
    async with asyncio.timeout(SECONDS):
        while not echo.cancelled:
            await asyncio.sleep(0.001)


async def test_a_client_that_asks_whether_to_go_on_is_told(served) -> None:
    line = await served[2]()
    line.send("POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
    async with asyncio.timeout(SECONDS):
        assert await line.reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.send("ok")
    assert (await line.answer())[2] == b"ok"
    line.send("POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2000\r\n\r\n")
    assert (await line.answer())[0] == 413  # before a byte of it was sent


async def test_a_body_that_nobody_reads_does_not_keep_the_answer_from_its_client(served) -> None:
    for path in ("/unread", "/"):
        line = await served[2]()
        line.send(f"POST {path} HTTP/1.1\r\ncontent-length: 8000000\r\n\r\n" + "x" * 4_000_000)
        status, headers, _ = await line.answer()
        assert (status, headers["connection"]) == (413, "close")
    line = await served[2]()
    line.send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n800\r\n" + "x" * 0x800 + "\r\n")
    assert (await line.answer())[0] == 413


async def test_heads_and_older_clients(served) -> None:
    line = await served[2]()
    line.send("HEAD /h HTTP/1.1\r\n\r\n")
    assert (await line.answer(is_head=True))[1]["content-length"] == "0"
    line.send("GET /old HTTP/1.0\r\n\r\n")
    assert (await line.answer())[1]["connection"] == "close"
    assert await line.rest() == b""


async def test_a_slow_reader_holds_back_the_next_piece(served) -> None:
    line = await served[2]()
    line.send("GET /pieces HTTP/1.1\r\n\r\n")
    await asyncio.sleep(0.05)
    server_side = next(iter(served[1]._connections))  # how much it holds for the client is told nowhere else
    assert server_side._transport.get_write_buffer_size() <= 2**20
    assert len((await line.answer())[2]) == 4 * 2**20


async def _until_full(server: Server) -> Any:
    """The only connection, once its client takes no more; how much is held for the client is told nowhere else."""
    async with asyncio.timeout(SECONDS):
        while not (connections := list(server._connections)) or not connections[0]._is_full:
            await asyncio.sleep(0.001)
    return connections[0]


@pytest.mark.parametrize("at_once", [True, False], ids=["all at once", "one by one"])
async def test_a_client_that_reads_no_answers_gets_no_more_of_them_until_it_does(served, at_once: bool) -> None:
    echo, server, dial = served
    count, body = 3000, "x" * LIMIT
    line, asked = await dial(), f"POST / HTTP/1.1\r\ncontent-length: {LIMIT}\r\n\r\n{body}"
    if at_once:
        line.send(asked * count)
    else:
        for number in range(count):
            line.send(asked)
            if number % 10 == 0:
                await asyncio.sleep(0)
    server_side = await _until_full(server)
    before = -1
    while before != len(echo.asked):  # until nothing goes on
        before = len(echo.asked)
        await asyncio.sleep(0.1)
    assert len(echo.asked) < count / 2
    assert server_side._transport.get_write_buffer_size() < 2**17
    for _ in range(count):
        assert (await line.answer())[2] == body.encode()
    assert len(echo.asked) == count


async def test_a_client_that_reads_no_answers_and_then_sends_nonsense_is_told_in_order(served) -> None:
    echo, server, dial = served
    line, count = await dial(), 600
    line.send(f"POST / HTTP/1.1\r\ncontent-length: {LIMIT}\r\n\r\n{'x' * LIMIT}" * count + "nonsense\r\n\r\n")
    await _until_full(server)
    assert [(await line.answer())[0] for _ in range(count)] == [200] * count
    assert (await line.answer())[0] == 400
    assert await line.rest() == b""
    assert len(echo.asked) == count


async def test_a_client_that_leaves_is_not_waited_for(served) -> None:
    echo, _, dial = served
    line = await dial()
    line.send("POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nhalf")
    while not echo.asked:
        await asyncio.sleep(0.001)
    line.writer.close()
    async with asyncio.timeout(SECONDS):
        while not echo.cancelled:
            await asyncio.sleep(0.001)


async def test_a_stopped_server_answers_what_it_was_asked_and_closes_the_rest(served) -> None:
    echo, server, dial = served
    idle, busy = await dial(), await dial()
    busy.send("POST /slow HTTP/1.1\r\ncontent-length: 1\r\n\r\n1")
    while not echo.asked:
        await asyncio.sleep(0.001)
    server.stop()
    assert await idle.rest() == b""
    echo.go_on.set()
    status, headers, body = await busy.answer()
    assert (status, headers["connection"], body) == (200, "close", b"1")
    async with asyncio.timeout(SECONDS):
        await server.wait_closed()


async def test_a_server_that_stops_amid_an_answer_ends_the_connection_after_it(served) -> None:
    _, server, dial = served
    line = await dial()
    line.send("GET /pieces HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(SECONDS):
        assert b"connection" not in await line.reader.readuntil(b"\r\n\r\n")
        server.stop()
        assert len(await line.rest()) == 4 * 2**20
        await server.wait_closed()
