"""Connections to Unix sockets in directories that somebody else writes to.

What runs in an instance may put a link in the place of its own socket, and would then be given what is meant for another's. So the name is
resolved once, without following a link, and the connection goes to what was found there.
"""

from __future__ import annotations

import asyncio
import os
import stat


async def open_socket(path: str, *, limit: int = 2**16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the Unix socket that has this very name. `limit`: bytes that are read ahead. Raises `OSError`, for a link as well."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise NotASocket(path)
        return await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}", limit=limit)
    finally:
        os.close(descriptor)


class NotASocket(OSError):
    """Something else has the name."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is no socket")
