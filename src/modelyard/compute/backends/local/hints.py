"""Hears from supervisors that something new can be seen of an instance.

A datagram socket in the backend's directory: supervisors send an instance's id to it if it is there. Nothing depends on it, so a
full queue, a late start and a restart of the server cost nothing but time.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

NAME = "hints"
_LONGEST_HINT = 256


class HintListener:
    """Listens at `root / NAME` while at least one iterator of `listen` is in use."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._queues: set[asyncio.Queue[str]] = set()
        self._socket: socket.socket | None = None

    async def listen(self) -> AsyncIterator[str]:
        """Ids as they come, each waiting id once."""
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=100_000)
        self._queues.add(queue)
        if self._socket is None:
            self._open()
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)
            if not self._queues:
                self._close()

    def _open(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._root / NAME).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        # An address has at most 107 bytes; the way through the descriptor is short however deep the directory lies.
        directory = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{directory}/{NAME}")
        finally:
            os.close(directory)
        (self._root / NAME).chmod(0o600)
        asyncio.get_running_loop().add_reader(listener, self._receive)
        self._socket = listener

    def _receive(self) -> None:
        if self._socket is None:
            return
        heard: set[str] = set()
        with suppress(BlockingIOError):
            while len(heard) < 1000:
                heard.add(self._socket.recv(_LONGEST_HINT).decode(errors="replace"))
        for queue in self._queues:
            for instance_id in heard:
                with suppress(asyncio.QueueFull):
                    queue.put_nowait(instance_id)

    def _close(self) -> None:
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        (self._root / NAME).unlink(missing_ok=True)
