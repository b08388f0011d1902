"""Asks every worker thread of Envoy which version of the routes it serves.

Envoy's main thread reports a configuration as taken before its workers have it, and a worker under load may be a moment late. The probe
listener spreads its connections evenly over the workers (`exact_balance`), so with one connection per worker each of them answers for itself, and
"new requests take the new way" is seen, not assumed. An answer costs a worker microseconds, however many routes there are.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from modelyard.gateway.backends.envoy.routes import PROBE_HOST

_REQUEST = f"GET / HTTP/1.1\r\nhost: {PROBE_HOST}\r\n\r\n".encode()
_ANSWER_SECONDS = 5.0


class ProbeFailed(Exception):
    """A worker gave no answer: Envoy is not there, or does not have the routes yet."""


class VersionProbe:
    """Connections to all workers, opened on first use and again after Envoy's restart."""

    def __init__(self, socket: Path, worker_count: int) -> None:
        self._socket = socket
        self._worker_count = worker_count
        self._connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def versions(self) -> set[str]:
        """The versions that the workers serve: one, or two while a change is on its way. Raises `ProbeFailed`."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                while len(self._connections) < self._worker_count:
                    self._connections.append(await asyncio.open_unix_connection(str(self._socket)))
                for _, writer in self._connections:
                    writer.write(_REQUEST)
                return {await _answer(reader) for reader, _ in self._connections}
        except (OSError, EOFError, ValueError, TimeoutError) as cause:
            self.close()
            raise ProbeFailed(f"Envoy's workers do not answer ({type(cause).__name__})") from cause
        except asyncio.CancelledError:
            self.close()  # an answer may still be on its way and would be taken for the next question's
            raise

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._connections:
            writer.close()
        self._connections.clear()


async def _answer(reader: asyncio.StreamReader) -> str:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
    body = await reader.readexactly(int(headers["content-length"]))
    if not head[0].startswith("http/1.1 200"):
        raise ValueError(head[0])
    return body.decode()
