"""The metrics of several processes as those of one server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress

OWN = "x-modelyard-own"
"""The header with which a process asks another for that one's numbers alone."""
_PATIENCE_SECONDS = 1.0
_MOST = ("_ready",)  # gauges of which the highest counts, not the sum


def merge(texts: Iterable[bytes]) -> bytes:
    """Prometheus' text format, summed over several texts; lines stand where they came first."""
    values: dict[str, float] = {}
    order: list[str] = []
    for text in texts:
        for line in text.decode().splitlines():
            name, _, value = line.rpartition(" ")
            key = line if line.startswith("#") or not name else name
            if key not in values:
                order.append(key)
                values[key] = 0.0
            if key is name:
                number = float(value)
                is_most = name.partition("{")[0].endswith(_MOST)
                values[key] = max(values[key], number) if is_most else values[key] + number
    return "".join(f"{key}\n" if key.startswith("#") else f"{key} {values[key]:.15g}\n" for key in order).encode()


async def ask_others(sockets: Sequence[str], own: str) -> list[bytes]:
    """What the other processes say; nothing of those that don't answer."""
    answers = await asyncio.gather(*(_ask(socket) for socket in sockets if socket != own))
    return [answer for answer in answers if answer is not None]


async def _ask(socket: str) -> bytes | None:
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(f"GET /metrics HTTP/1.0\r\nHost: localhost\r\n{OWN}: 1\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.read()
            finally:
                writer.close()
            return body if b" 200 " in head.partition(b"\r\n")[0] else None
    return None
