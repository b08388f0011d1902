"""Is an instance ready for requests? Asked of the instance itself, over its Unix socket."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from modelyard.kit.sockets import open_socket


async def is_ready(socket_path: str, path: str, *, timeout_seconds: float = 2.0) -> bool:
    """Whether `GET {path}` over the socket answers 200 in time. Any failure is a no."""
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await open_socket(socket_path)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
                status = await reader.readline()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False
    parts = status.split()
    return len(parts) >= 2 and parts[0].startswith(b"HTTP/1.") and parts[1] == b"200"
