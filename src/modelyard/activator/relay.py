"""Holds the requests to models that rest, and passes them on as soon as a model server is there.

It never reads a request: a connection of the gateway carries one at a time, so holding the connection holds the request, and passing on is
copying bytes both ways. Bodies stay where they are, in the gateway and in the socket, until somebody reads them.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from contextlib import suppress
from pathlib import Path

from modelyard.activator.board import Board, Seat
from modelyard.kit.sockets import open_socket

_LOOK_SECONDS = 0.05
_CALM_LOOK_SECONDS = 0.25
_WAKE_SECONDS = 0.5
_IDLE_SECONDS = 30.0
_CHUNK_BYTES = 64 * 1024
_BACKLOG = 2048
_RETRY_AFTER_SECONDS = 5
_DISCARD_BYTES = 2**20


class Activator:
    """Listens for every seat on the board."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._seats: dict[str, Seat] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._held: dict[str, int] = {}
        self._connections: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._is_ending = False

    async def run(self) -> None:
        """Serve until SIGTERM, or until the board has been empty for a while."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._end)
        seen: tuple[int, int] | None = None
        needed_at = loop.time()
        while not self._is_ending:
            version = self._board.version
            if version != seen:
                seen = version
                await self._follow()
            if self._seats or self._connections:
                needed_at = loop.time()
            elif loop.time() - needed_at > _IDLE_SECONDS:
                break
            await asyncio.sleep(_LOOK_SECONDS if any(self._held.values()) else _CALM_LOOK_SECONDS)
        for server in self._servers.values():
            server.close()
        if self._connections:
            await asyncio.wait(self._connections, timeout=2.0)
        for seat in self._seats.values():
            _remove(seat.socket)

    async def _follow(self) -> None:
        """Listen for those who are new on the board, no longer for those who are gone."""
        seats = dict(self._board.read())
        for id in self._servers.keys() - seats.keys():
            self._servers.pop(id).close()
            _remove(self._seats[id].socket)
        self._seats = seats
        for id, seat in seats.items():
            if id not in self._servers:
                self._servers[id] = await self._listen(seat)
        self._news.set()
        self._news.clear()

    async def _listen(self, seat: Seat) -> asyncio.Server:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None  # a coroutine of a server runs in a task of its own
            self._connections.add(task)
            try:
                await self._serve(seat.id, reader, writer)
            except OSError:
                pass  # the gateway or the model server has gone; the other side sees that too
            finally:
                self._connections.discard(task)
                writer.close()

        _remove(seat.socket)
        server = await asyncio.start_unix_server(accepted, seat.socket, limit=_CHUNK_BYTES, backlog=_BACKLOG)
        _keep_private(seat.socket)
        return server

    async def _serve(self, id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(_CHUNK_BYTES)
        if not first:
            return
        held, seat = self._held.get(id, 0), self._seats.get(id)
        if seat is not None and held >= seat.limit:
            await _refuse(reader, writer, f"{held} requests wait for this model to start; no more may")
            return
        self._held[id] = held + 1
        try:
            answering = await self._wait(id)
        finally:
            self._held[id] -= 1
        if answering is None:
            await _refuse(reader, writer, self._why(id))
            return
        other_reader, other_writer = answering
        try:
            other_writer.write(first)
            await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))
        finally:
            other_writer.close()

    async def _wait(self, id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to a model server, once there is one; None when that takes too long, or the model is gone."""
        clock = asyncio.get_running_loop().time
        begun_at, next_wake_at = clock(), 0.0
        while not self._is_ending and (seat := self._seats.get(id)) is not None:
            for address in random.sample(seat.addresses, len(seat.addresses)):
                with suppress(OSError):
                    return await open_socket(address, limit=_CHUNK_BYTES)
            now = clock()
            if now - begun_at > seat.hold_seconds:
                return None
            if now >= next_wake_at:
                next_wake_at = now + _WAKE_SECONDS
                self._board.wake(id)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._news.wait()
        return None

    def _why(self, id: str) -> str:
        now = self._seats.get(id)
        if self._is_ending or now is None:
            return "the model is no longer served here"
        waited = f"the model rests and did not start within {now.hold_seconds:.0f} s"
        return f"{waited}: {now.message}" if now.message else waited

    def _end(self) -> None:
        self._is_ending = True


def _remove(socket: str) -> None:
    Path(socket).unlink(missing_ok=True)


def _keep_private(socket: str) -> None:
    Path(socket).chmod(0o600)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything that comes, until one of both ends."""
    with suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    with suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, why: str) -> None:
    """Answer 503, with the reason and when to try again."""
    sentence = f"{why[:1].upper()}{why[1:].rstrip('.')}. Try again in {_RETRY_AFTER_SECONDS} seconds."
    header = {"isSuccessful": False, "resultCode": 503906, "resultMessage": sentence}
    body = json.dumps({"header": header, "error": sentence}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
        f"Retry-After: {_RETRY_AFTER_SECONDS}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.drain()
            writer.write_eof()
            # What nobody reads would make the kernel break the connection, and with it the answer.
            left = _DISCARD_BYTES
            while left > 0 and (chunk := await reader.read(_CHUNK_BYTES)):
                left -= len(chunk)
