"""HTTP/1.1 on the event loop itself: bytes of a connection in, the door's answer out.

A library that keeps its sockets in threads of its own costs each request half a dozen changes between threads, which on a machine at rest take
ten times as long as a small model's answer. Here one thread reads, predicts what is quick, and writes. What is a request, and where it ends, says
httptools (the parser of Node.js). The only client is the gateway, or somebody who tries the server by hand; so there is no TLS, no HTTP/2, and
no pipelining beyond answering in order. Who reads no answers gets no more of them: neither are they made, nor is what asks for them read.
Source: https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import asyncio
import socket as sockets
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, cast
from urllib.parse import unquote

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from modelyard.serving.at_once import begun
from modelyard.serving.http1_head import WITHOUT_BODY, read_fields, write_head

_MAX_HEAD_BYTES = 128 * 1024  # the gateway lets 96 KiB pass
_LINGER_SECONDS = 2.0
_PIECE_BYTES = 256 * 1024
_READ_BYTES = 256 * 1024
_VERSIONS = ("1.0", "1.1")


class Application(Protocol):
    """What answers requests."""

    def answer(self, request: Request) -> Coroutine[Any, Any, None]:
        """Answer a request. For one that came whole it may begin outside any task, so it must not ask for its task before it has waited."""
        ...


class Server:
    """Listens, and gives each request to the application.

    Args:
        application: called once for each request, in the event loop; it calls `respond` or `respond_in_pieces` of the request once.
    """

    def __init__(self, application: Application) -> None:
        self.application = application
        self.tasks: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        self._listener: asyncio.Server | None = None
        self._is_stopping = False
        self._is_over = asyncio.Event()

    async def listen(self, listener: sockets.socket, backlog: int) -> None:
        """Serve a bound socket. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        if listener.family == sockets.AF_UNIX:
            self._listener = await loop.create_unix_server(lambda: _Connection(self), sock=listener, backlog=backlog)
        else:
            self._listener = await loop.create_server(lambda: _Connection(self), sock=listener, backlog=backlog)

    def stop(self) -> None:
        """Take no new connections, and close each one after the answers to what it has sent."""
        self._is_stopping = True
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self._connections):
            connection.finish()
        self._look_whether_over()

    async def wait_closed(self) -> None:
        """Return when the server was stopped and its last connection is gone."""
        await self._is_over.wait()

    @property
    def is_stopping(self) -> bool:
        """Whether connections are to end after their answers."""
        return self._is_stopping

    def joined(self, connection: _Connection) -> None:
        """A connection has come."""
        self._connections.add(connection)

    def left(self, connection: _Connection) -> None:
        """A connection has gone."""
        self._connections.discard(connection)
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        if self._is_stopping and not self._connections:
            self._is_over.set()


class Request:
    """A request, and the way back.

    Attributes:
        method: as sent.
        path: percent-decoded, without the query.
        headers: by name in lower case; fields that came more than once are joined by commas.
    """

    __slots__ = (
        "_connection",
        "_is_abandoned",
        "_pieces",
        "_size",
        "_waiting",
        "awaits_continue",
        "headers",
        "is_answered",
        "is_kept",
        "is_whole",
        "method",
        "path",
    )

    def __init__(
        self, connection: _Connection, method: str, path: str, headers: dict[str, str], *, is_kept: bool
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.is_kept = is_kept
        self.is_whole = False
        self.is_answered = False
        self.awaits_continue = self.headers.get("expect", "").lower() == "100-continue"
        self._connection = connection
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiting: asyncio.Future[None] | None = None
        self._is_abandoned = False

    @property
    def declared_bytes(self) -> int | None:
        """The body's length, where the client said it."""
        text = self.headers.get("content-length")
        return None if text is None else int(text)

    async def read(self, limit: int, too_large: Callable[[], Exception]) -> bytes:
        """The whole body. Raises what `too_large` makes as soon as it is known to be longer than the limit, in bytes; is
        cancelled when the rest of it will never come."""
        if (self.declared_bytes or 0) > limit:
            raise too_large()
        if self.awaits_continue and not self.is_whole:
            self.awaits_continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            if self._size > limit:
                raise too_large()
            if self.is_whole:
                break
            if self._is_abandoned:
                raise asyncio.CancelledError
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def respond(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        """Answer in one piece."""
        head = self._head(status, headers, len(body))
        self._connection.write(head if self.method == "HEAD" or status in WITHOUT_BODY else head + body)
        self._connection.answered(self)

    async def respond_in_pieces(
        self, status: int, headers: Iterable[tuple[str, str]], parts: Iterable[bytes | memoryview]
    ) -> None:
        """Answer with several parts, tensors of any shape among them, piece by piece: a large one is not copied as a whole, and a slow reader is
        waited for."""
        views = [memoryview(part).cast("B") for part in parts]  # of a tensor `len` would tell the rows
        self._connection.write(self._head(status, headers, sum(map(len, views))))
        if self.method != "HEAD":
            for view in views:
                for begin in range(0, len(view), _PIECE_BYTES):
                    self._connection.write(bytes(view[begin : begin + _PIECE_BYTES]))
                    await self._connection.drained()
        self._connection.answered(self)

    def take(self, piece: bytes) -> None:
        """A part of the body has come."""
        if self.is_answered:
            return
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()

    def end(self) -> None:
        """The body is whole."""
        self.is_whole = True
        self._wake()

    def abandon(self) -> None:
        """The client is gone; nobody need wait for its body any more."""
        self._is_abandoned = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _head(self, status: int, headers: Iterable[tuple[str, str]], length: int) -> bytes:
        own = list(headers)
        is_left = not self.is_whole or self._connection.is_stopping
        if is_left or any(name.lower() == "connection" and value.lower() == "close" for name, value in own):
            self.is_kept = False
        return write_head(status, own, None if status in WITHOUT_BODY else length, is_kept=self.is_kept)


class _Connection(asyncio.BufferedProtocol):
    """Takes requests off a connection and has them answered one after the other. The methods `on_…` are called by the parser."""

    # What arrives is parsed before anything else is read, so all connections share the place where it arrives. A new one for each read would
    # be so large that the allocator asks the kernel for it, and gives it back, each time.
    _arrivals = memoryview(bytearray(_READ_BYTES))

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._parser = HttpRequestParser(self)
        self._head_bytes = 0
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._incoming: Request | None = None  # whose body is still coming
        self._answering: Request | None = None
        self._fresh: Request | None = None  # the one that is answered next, as soon as all is read that has come
        self._next: deque[Request] = deque()  # that came before the answer to the one before
        self._refusal: tuple[int, str] | None = None  # of what is no request; after the answers that are due
        self._is_deaf = False  # nothing that comes is read any more
        self._room: asyncio.Future[None] | None = None
        self._is_full = False

    @property
    def is_stopping(self) -> bool:
        """Whether the server is about to end."""
        return self._server.is_stopping

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.joined(self)
        if self._server.is_stopping:
            self.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for request in (self._answering, *self._next):
            if request is not None:
                request.abandon()
        self._make_room()
        self._server.left(self)

    def pause_writing(self) -> None:
        self._is_full = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_full = False
        self._make_room()
        if self._answering is None and self._next:
            self._start_next()
        else:
            self._read_on()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._arrivals

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_deaf:
            return
        self._parse(self._arrivals[:nbytes])
        request, self._fresh = self._fresh, None
        if request is None:
            return
        if request.is_whole and request.method == "POST":
            self._answer_at_once(request)
        else:
            self._start(request)

    def _parse(self, data: memoryview) -> None:
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:  # another protocol is not spoken here; what follows can't be read
            self._is_deaf = True
            last = self._next[-1] if self._next else self._answering
            if last is not None:
                last.is_kept = False
        except HttpParserError as fault:
            self._malformed(400, f"this is not a request of HTTP/1.1: {fault}")
        else:
            if self._head_bytes > _MAX_HEAD_BYTES:  # or what comes after a body in chunks, or between them
                self._malformed(431, "the request's head is too long")

    def on_message_begin(self) -> None:
        self._target, self._fields = b"", []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._incoming is None:  # else after the body: too late to be one of the request's headers (RFC 9110, 6.5.1)
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self._is_deaf:
            return
        headers = read_fields(self._fields)
        version, coding = self._parser.get_http_version(), headers.get("transfer-encoding")
        if version not in _VERSIONS:
            self._malformed(400, f"this is not a request of HTTP/1.1: it says HTTP/{version}")
            return
        if coding is not None and coding.lower() != "chunked":
            self._malformed(501, "the only transfer-encoding that is read is 'chunked'")
            return
        target = self._target.decode("latin-1")
        if not target.startswith("/"):  # what a client sends to a proxy
            target = "/" + target.partition("://")[2].partition("/")[2]
        path = target.partition("?")[0]
        method, is_kept = self._parser.get_method().decode("ascii"), self._parser.should_keep_alive()
        request = Request(self, method, unquote(path) if "%" in path else path, headers, is_kept=is_kept)
        self._incoming = request
        if self._answering is None and not self._next and not self._is_full:
            self._answering = self._fresh = request
        else:
            self._next.append(request)
            if self._transport is not None:
                self._transport.pause_reading()  # what has not come yet waits for the answers

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        if self._incoming is not None:
            self._incoming.take(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        if self._incoming is not None:
            request, self._incoming = self._incoming, None
            request.end()

    def finish(self) -> None:
        """Close, now or after the answer that is due."""
        if self._answering is None and not self._next and self._transport is not None and not self._is_deaf:
            self._transport.close()

    def write(self, data: bytes) -> None:
        """Send; what the client does not wait for any more is dropped."""
        if self._transport is not None:
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait while the client has not taken what was sent."""
        if self._is_full and self._transport is not None:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    def answered(self, request: Request) -> None:
        """The answer was written."""
        request.is_answered = True
        self._answering = None
        if not request.is_kept:
            self._linger(is_read=request.is_whole)
        elif self._next:
            if not self._is_full:
                self._start_next()
        elif self._refusal is not None:
            self._refuse(*self._refusal)
        elif self.is_stopping:  # since the head of the answer was written
            self.finish()

    def _start_next(self) -> None:
        self._start(self._next.popleft())
        self._read_on()

    def _read_on(self) -> None:
        """Read what comes, unless there is enough to do, or the client is to read first."""
        if not self._next and not self._is_full and self._transport is not None:
            self._transport.resume_reading()

    def _start(self, request: Request) -> None:
        self._answering = request
        self._watch(self._server.application.answer(request))

    def _answer_at_once(self, request: Request) -> None:
        """Answer without a task, which costs as much as a small prediction, unless the application has to wait for something."""
        try:
            rest = begun(self._server.application.answer(request))
        except (Exception, asyncio.CancelledError) as error:
            self._failed(error)
        else:
            if rest is not None:
                self._watch(rest)

    def _watch(self, answering: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(answering)
        self._server.tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._server.tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        if not isinstance(
            error, asyncio.CancelledError
        ):  # the application answers its own errors; this is a fault of ours
            traceback.print_exception(error)
        if self._transport is not None:
            self._transport.abort()

    def _malformed(self, status: int, sentence: str) -> None:
        """Where the next request would begin is not known any more."""
        if self._is_deaf:
            return
        self._is_deaf = True
        if self._incoming is not None:  # its body makes no sense
            self._incoming.abandon()
            if self._transport is not None:
                self._transport.abort()
        elif self._answering is None and not self._next:
            self._refuse(status, sentence)
        else:
            self._refusal = (status, sentence)

    def _refuse(self, status: int, sentence: str) -> None:
        body = orjson.dumps({"error": sentence})
        self.write(write_head(status, [("content-type", "application/json")], len(body), is_kept=False) + body)
        self._linger(is_read=False)

    def _linger(self, *, is_read: bool) -> None:
        """Close, but first let the client read the answer: with bytes that nobody has read, the kernel would break the connection off."""
        self._is_deaf = True
        transport = self._transport
        if transport is None:
            return
        if is_read and not self._next:
            transport.close()
            return
        self._next.clear()
        transport.resume_reading()
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)
        if transport.can_write_eof():
            transport.write_eof()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
