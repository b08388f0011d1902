"""What a run says to the keeper of the data cache, beside everything else that it does (see `datacache`)."""

from __future__ import annotations

import array
import os
import socket
import threading
import time
from collections import deque

_FINISH = "finish"
_ANSWER_SECONDS = 120.0


class Offers:
    """Messages to the keeper behind the socket `door`, one after the other; the first one begins the talk. Safe to use from several threads."""

    def __init__(self, door: str) -> None:
        self._door = door
        self._condition = threading.Condition()
        self._messages: deque[tuple[str, str]] = deque()
        self._is_busy = False
        threading.Thread(target=self._talk, name="data cache", daemon=True).start()

    def say(self, message: str, path: str) -> None:
        """Put a message in the queue, with a descriptor of the file at `path` (empty: with none)."""
        with self._condition:
            if self._door:
                self._messages.append((message, path))
                self._condition.notify_all()

    def finish(self, seconds: float) -> None:
        """Wait until everything was said and looked at, but not longer than this."""
        self.say(_FINISH, "")
        deadline = time.monotonic() + seconds
        with self._condition:
            while (self._messages or self._is_busy) and (left := deadline - time.monotonic()) > 0:
                self._condition.wait(left)

    def _talk(self) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.settimeout(_ANSWER_SECONDS)
                connection.connect(self._door)
                while True:
                    with self._condition:
                        self._is_busy = False
                        self._condition.notify_all()
                        while not self._messages:
                            self._condition.wait()
                        message, path = self._messages.popleft()
                        self._is_busy = True
                    _tell(connection, message, path)
        except OSError:
            pass  # Nobody is there, or the keeper has given up: a cache is a favour, not a promise.
        with self._condition:
            self._door, self._is_busy = "", False
            self._messages.clear()
            self._condition.notify_all()


def _tell(connection: socket.socket, message: str, path: str) -> None:
    if not path:
        connection.sendall(message.encode())
        if message == _FINISH:
            connection.recv(64)
        return
    try:
        offered = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return  # The script has moved it away.
    try:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [offered]))
        connection.sendmsg([message.encode()], [rights])
    finally:
        os.close(offered)
    if not connection.recv(64):
        raise ConnectionError
