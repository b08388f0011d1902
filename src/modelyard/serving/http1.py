"""HTTP/1.1 on the event loop itself: bytes of a connection in, the door's answer out.

A library that keeps its sockets in threads of its own costs each request half a dozen changes between threads, which on a machine at rest take
ten times as long as a small model's answer. Here one thread reads, predicts what is quick, and writes. The only client is the gateway, or
somebody who tries the server by hand; so there is no TLS, no HTTP/2, and no pipelining beyond answering in order.
Source: https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import asyncio
import re
import socket as sockets
import traceback
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, cast

from modelyard.serving.http1_head import WITHOUT_BODY, Head, MalformedRequest, read_frame, read_head, write_head

_MAX_HEAD_BYTES = 128 * 1024  # the gateway lets 96 KiB pass
_LOOKAHEAD_BYTES = 256 * 1024
_LINGER_SECONDS = 2.0
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_LINE_END = -1  # what is missing of a chunk whose bytes are all there


class Application(Protocol):
    """What answers requests."""

    async def answer(self, request: Request) -> None: ...


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

    def __init__(self, connection: _Connection, head: Head) -> None:
        self.method = head.method
        self.path = head.path
        self.headers = head.headers
        self.is_kept = head.is_kept
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
        self, status: int, headers: Iterable[tuple[str, str]], length: int, pieces: Iterable[bytes]
    ) -> None:
        """Answer piece by piece, waiting for a slow reader; together the pieces are `length` bytes."""
        self._connection.write(self._head(status, headers, length))
        if self.method != "HEAD":
            for piece in pieces:
                self._connection.write(piece)
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


class _Connection(asyncio.Protocol):
    """Takes requests off a connection, one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._request: Request | None = None
        self._missing = 0  # bytes of the body or chunk that are still to come
        self._is_chunked = False
        self._reads_trailer = False
        self._lingers = False
        self._is_paused = False
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
        if self._request is not None:
            self._request.abandon()
        self._make_room()
        self._server.left(self)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._make_room()

    def data_received(self, data: bytes) -> None:
        if self._lingers:
            return
        self._buffer += data
        self._advance()

    def finish(self) -> None:
        """Close, now or after the answer that is due."""
        if self._request is None and self._transport is not None and not self._lingers:
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
        if request.is_kept:
            if request.is_whole and self._request is request:
                self._request = None
                self._resume()
                if self._buffer:
                    # Not from within the application, whose calls would nest deeper with each request.
                    asyncio.get_running_loop().call_soon(self._advance)
                elif self._server.is_stopping:
                    self.finish()
        else:
            self._linger()

    def _linger(self) -> None:
        """Close, but first let the client read the answer: with bytes that nobody has read, the kernel would break the connection off."""
        self._lingers = True
        self._buffer.clear()
        transport, request = self._transport, self._request
        if transport is None:
            return
        if request is not None and request.is_whole:
            transport.close()
            return
        self._resume()
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, transport.close)
        if transport.can_write_eof():
            transport.write_eof()

    def _advance(self) -> None:
        """Do what the bytes that have come allow."""
        if self._request is not None:
            self._read_body(self._request)
            return
        if self._lingers or self._transport is None:
            return
        while self._buffer.startswith(b"\r\n"):  # RFC 9112 2.2
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > _MAX_HEAD_BYTES:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                self._refuse(431, "the request's head is too long")
            return
        head = bytes(self._buffer[: end + 2])
        del self._buffer[: end + 4]
        request = self._parse(head)
        if request is None:
            return
        self._request = request
        self._read_body(request)
        self._start(self._server.application.answer(request))

    def _start(self, answering: Awaitable[None]) -> None:
        task = asyncio.ensure_future(answering)
        self._server.tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._server.tasks.discard(task)
        if task.cancelled():
            if self._transport is not None:
                self._transport.abort()
            return
        error = task.exception()
        if error is not None:  # the application answers its own errors; this is a fault of ours
            traceback.print_exception(error)
            if self._transport is not None:
                self._transport.abort()

    def _parse(self, text: bytes) -> Request | None:
        """The request in a head; None where it was refused."""
        try:
            head = read_head(text)
            frame = read_frame(head.headers)
        except MalformedRequest as fault:
            self._refuse(fault.status, fault.sentence)
            return None
        self._is_chunked, self._missing, self._reads_trailer = frame is None, frame or 0, False
        return Request(self, head)

    def _read_body(self, request: Request) -> None:
        if request.is_whole:  # the next request has begun to come: it waits for the answer to this one
            self._hold_back()
            return
        if not self._is_chunked:
            self._take(request)
            if not self._missing:
                request.end()
            return
        while not request.is_whole:
            if self._missing > 0:
                self._take(request)
                if self._missing:
                    return
                self._missing = _LINE_END
            if self._missing == _LINE_END:
                if len(self._buffer) < 2:
                    return
                if not self._buffer.startswith(b"\r\n"):
                    self._break_off(request)
                    return
                del self._buffer[:2]
                self._missing = 0
            if self._reads_trailer:
                if not self._skip_trailer(request):
                    return
                continue
            found = _CHUNK.match(self._buffer)
            if found is None:
                if b"\n" in self._buffer or len(self._buffer) > _MAX_HEAD_BYTES:
                    self._break_off(request)
                return
            self._missing = int(found[1], 16)
            del self._buffer[: found.end()]
            self._reads_trailer = not self._missing

    def _skip_trailer(self, request: Request) -> bool:
        """Pass over the lines after the last chunk; False while they are not all there."""
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                self._break_off(request)
            return False
        del self._buffer[: end + 2]
        if end == 0:
            request.end()
        return True

    def _take(self, request: Request) -> None:
        if self._missing and self._buffer:
            if len(self._buffer) <= self._missing:
                piece = bytes(self._buffer)
                self._buffer.clear()
            else:
                piece = bytes(self._buffer[: self._missing])
                del self._buffer[: self._missing]
            self._missing -= len(piece)
            request.take(piece)

    def _break_off(self, request: Request) -> None:
        """The body makes no sense: nothing that follows could be told from it."""
        request.abandon()
        if self._transport is not None:
            self._transport.abort()

    def _hold_back(self) -> None:
        if len(self._buffer) > _LOOKAHEAD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer what is no request, and end the connection: where the next one would begin is not known."""
        body = b'{"error":"%s"}' % sentence.encode("ascii")
        self.write(write_head(status, [("content-type", "application/json")], len(body), is_kept=False) + body)
        self._linger()
