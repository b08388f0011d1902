"""The way out of a network of one's own.

The notebook makes listening sockets on its own loopback and hands them over, through a Unix socket, to the relay that the platform runs
outside (`compute/backends/local/relay.py`): the front door's addresses as everybody knows them, and an HTTP proxy for the rest of the world.
Whoever connects to them is served out there; no byte passes through a process in here.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any, cast

_CONNECT_SECONDS = 30.0
_PAUSE_SECONDS = 0.02
_AGAIN_SECONDS = 1.0
_ANSWER_BYTES = 4096


class WayOut:
    """Keeps the listeners in the relay's hands, also when it is started anew.

    Args:
        path: the relay's Unix socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._listeners: list[tuple[str, socket.socket]] = []
        self.proxy_url = ""

    def open(self) -> None:
        """Make the listeners, hand them over, and stay connected in a thread. Raises OSError when nobody takes them."""
        connection = self._connect(_CONNECT_SECONDS)
        doors = self._doors(connection)
        proxy = _listener(("127.0.0.1", 0))
        self.proxy_url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        self._listeners = [("proxy", proxy)]
        for door in doors:
            host, _, port = door.rpartition(":")
            if host in ("127.0.0.1", "localhost"):
                self._listeners.append((f"door {door}", _listener(("127.0.0.1", int(port)))))
        self._hand_over(connection)
        threading.Thread(target=self._stay, args=(connection,), name="way-out", daemon=True).start()

    def _stay(self, connection: socket.socket) -> None:
        while True:
            with contextlib.suppress(OSError):
                while connection.recv(1):
                    continue
            connection.close()
            time.sleep(_AGAIN_SECONDS)
            with contextlib.suppress(OSError, ValueError):
                connection = self._connect(_CONNECT_SECONDS)
                self._doors(connection)
                self._hand_over(connection)

    def _connect(self, seconds: float) -> socket.socket:
        deadline = time.monotonic() + seconds
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(self._path)
            except OSError:
                connection.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_SECONDS)
            else:
                return connection

    def _doors(self, connection: socket.socket) -> list[str]:
        """The first thing that the relay says."""
        greeting: Any = json.loads(connection.recv(_ANSWER_BYTES))
        return cast("list[str]", greeting["doors"])

    def _hand_over(self, connection: socket.socket) -> None:
        kinds = [kind for kind, _ in self._listeners]
        message = json.dumps({"kinds": kinds}).encode()
        socket.send_fds(connection, [message], [listener.fileno() for _, listener in self._listeners])
        if not connection.recv(_ANSWER_BYTES).startswith(b"ok"):
            raise OSError("the relay refused the listeners")


def _listener(address: tuple[str, int]) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(128)
    return listener
