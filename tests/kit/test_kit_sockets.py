"""Sockets by their own name alone."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from modelyard.kit.sockets import open_socket


async def test_a_socket_is_opened_and_a_link_to_one_is_not() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    with tempfile.TemporaryDirectory() as directory:  # short: paths of sockets are
        place = Path(directory)
        async with await asyncio.start_unix_server(greet, place / "real"):
            reader, writer = await open_socket(str(place / "real"))
            assert await reader.readline() == b"hello\n"
            writer.close()
            await writer.wait_closed()
            (place / "link").symlink_to(place / "real")
            (place / "file").write_text("")
            (place / "gone").symlink_to(place / "nothing")
            for name in ("link", "file", "gone", "absent"):
                with pytest.raises(OSError, match=name):
                    await open_socket(str(place / name))
