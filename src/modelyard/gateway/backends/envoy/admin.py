"""Envoy's admin interface, over its Unix socket: what it has, what it counts, and asking it to end.

Requests are made by hand, one connection each: the interface is asked every few milliseconds while a route changes, and a general client costs
and logs more than the question.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

_USUAL_SECONDS = 10.0
_READ_BYTES = 1024 * 1024
_DUMP_SECONDS = 60.0  # ten thousand routes are 50 MB of JSON


class AdminUnreachable(Exception):
    """Envoy does not answer on its admin socket: it is not there, or is too busy."""


class Admin:
    """A client of one Envoy's admin interface. All methods raise `AdminUnreachable`."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def is_ready(self) -> bool:
        """Whether Envoy has its configuration and serves. False also when it can't be reached."""
        try:
            return (await self._ask("GET", "/ready", seconds=2.0))[0] == 200
        except AdminUnreachable:
            return False

    async def counters(self, pattern: str) -> dict[str, int | str]:
        """Counters, gauges and texts whose names match the regular expression (RE2)."""
        content = await self._content(f"/stats?format=json&filter={quote(pattern)}")
        return {entry["name"]: entry["value"] for entry in orjson.loads(content)["stats"] if "name" in entry}

    async def statistics(self, pattern: str) -> bytes:
        """Envoy's JSON of all statistics, histograms too, whose names match the regular expression (RE2)."""
        return await self._content(
            f"/stats?format=json&usedonly&histogram_buckets=disjoint&filter={quote(pattern)}", seconds=_DUMP_SECONDS
        )

    async def dump_routes(self) -> bytes:
        """Envoy's JSON of the route configuration that it has now."""
        return await self._content("/config_dump?resource=dynamic_route_configs", seconds=_DUMP_SECONDS)

    async def active_clusters(self, pattern: str) -> set[str]:
        """Names of the upstreams that Envoy has and whose names match the regular expression (RE2)."""
        query = f"/config_dump?resource=dynamic_active_clusters&mask=cluster.name&name_regex={quote(pattern)}"
        dump = orjson.loads(await self._content(query, seconds=_DUMP_SECONDS))
        return {entry["cluster"]["name"] for entry in dump.get("configs", [])}

    async def dump_clusters(self, names: set[str]) -> list[dict[str, Any]]:
        """Envoy's JSON of the upstreams with these names, as it has them."""
        pattern = quote(f"^({'|'.join(sorted(re.escape(name) for name in names))})$")
        content = await self._content(f"/config_dump?resource=dynamic_active_clusters&name_regex={pattern}")
        return [entry["cluster"] for entry in orjson.loads(content).get("configs", [])]

    async def reopen_logs(self) -> None:
        """Make Envoy write its logs to new files under the old names."""
        await self._post("/reopen_logs")

    async def stop_listening(self) -> None:
        """Take no further connections; those that are open go on, and are asked to close."""
        await self._post("/drain_listeners")

    async def end(self) -> None:
        """Make the process end at once."""
        await self._post("/quitquitquit")

    async def _post(self, path: str) -> None:
        await self._ask("POST", path, seconds=_USUAL_SECONDS)

    async def _content(self, path: str, seconds: float = _USUAL_SECONDS) -> bytes:
        status, content = await self._ask("GET", path, seconds=seconds)
        if status != 200:
            raise AdminUnreachable(f"Envoy answered {status} to {path}: {content[:200]!r}")
        return content

    async def _ask(self, method: str, path: str, *, seconds: float) -> tuple[int, bytes]:
        request = f"{method} {path} HTTP/1.1\r\nhost: envoy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=_READ_BYTES)
                try:
                    writer.write(request.encode())
                    return await _answer(reader)
                finally:
                    writer.close()
        except (OSError, EOFError, ValueError) as cause:  # a TimeoutError is an OSError
            raise AdminUnreachable(f"Envoy's admin socket does not answer ({type(cause).__name__})") from cause


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of an HTTP/1.1 response (RFC 9112) whose connection ends with it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    if "\r\ntransfer-encoding: chunked\r\n" not in head:
        return status, await reader.read()
    content = bytearray()
    while size := int(await reader.readline(), 16):
        content += await reader.readexactly(size)
        await reader.readline()
    return status, bytes(content)
