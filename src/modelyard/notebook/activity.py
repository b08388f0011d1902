"""Is anybody at work here? Asked of Jupyter (kernels, terminals, pages) and of the processes themselves.

At work means: a kernel is busy, something came through a terminal or the API, or the user's processes take more than a fifth of a core. Open
pages alone don't count, since they are left open over night.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from datetime import datetime
from typing import Any, cast

_BUSY_CORES = 0.2
_ANSWER_SECONDS = 5.0
_LIMIT_BYTES = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


class ActivityGauge:
    """Looks now and then; the newest sign of life counts."""

    def __init__(self, socket_path: str, base_url: str = "/") -> None:
        self._socket_path = socket_path
        self._base_url = base_url
        self._last_at = time.time()
        self._cpu: dict[int, float] = {}
        self._looked_at = time.monotonic()

    @property
    def last_at(self) -> float:
        """The newest sign of life, Unix time."""
        return self._last_at

    def note(self, used_at: float) -> None:
        """Somebody was at work then, Unix time."""
        self._last_at = max(self._last_at, min(used_at, time.time()))

    def look(self, own: frozenset[int]) -> None:
        """Look once; `own` are processes that are not the user's."""
        now = time.time()
        if self._used_cores(own) > _BUSY_CORES or any(
            kernel.get("execution_state") == "busy" for kernel in self._listed("api/kernels?no_track_activity=1")
        ):
            self._last_at = now
            return
        status = self._ask("api/status")
        seen = _moment(cast("dict[str, Any]", status).get("last_activity")) if isinstance(status, dict) else None
        if seen is not None:
            self._last_at = min(max(self._last_at, seen), now)

    def _used_cores(self, own: frozenset[int]) -> float:
        seconds = {pid: used for pid, used in cpu_seconds().items() if pid not in own}
        now = time.monotonic()
        passed, self._looked_at = max(now - self._looked_at, 0.1), now
        used = sum(used - self._cpu.get(pid, 0.0) for pid, used in seconds.items())
        self._cpu = seconds
        return used / passed

    def _listed(self, path: str) -> list[dict[str, Any]]:
        answer = self._ask(path)
        items = cast("list[Any]", answer) if isinstance(answer, list) else []
        return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]

    def _ask(self, path: str) -> Any:
        with contextlib.suppress(OSError, ValueError):
            return json.loads(get(self._socket_path, self._base_url + path))
        return None


def get(socket_path: str, path: str) -> bytes:
    """The body of what Jupyter answers. Raises OSError, ValueError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        connection.connect(socket_path)
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        content = b""
        while len(content) < _LIMIT_BYTES and (piece := connection.recv(65536)):
            content += piece
    head, _, body = content.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise ValueError("not a 200")
    return body


def cpu_seconds() -> dict[int, float]:
    """CPU time of every process in here, by its number."""
    found: dict[int, float] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"/proc/{name}/stat", encoding="utf-8") as file,
            ):
                fields = file.read().rpartition(")")[2].split()
                found[int(name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def _moment(value: Any) -> float | None:
    if not isinstance(value, str):
        return None
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(value.replace("Z", "+00:00")).timestamp()
    return None
