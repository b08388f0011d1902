"""The caller's side of the reading process: started when it is first needed, and again when it has ended."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress

from modelyard.eventfiles.messages import LENGTHS, ReadingFailed, parse_answer, request_line
from modelyard.eventfiles.reading import Found, Place

_ANSWER_SECONDS = 60.0
_MAX_FRAME_BYTES = 256 << 20


class ReadingProcess:
    """Asks one process, one question at a time. Not for several tasks at once."""

    def __init__(self) -> None:
        self._process: Process | None = None

    @property
    def pid(self) -> int | None:
        """Of the process that is asked next, if one runs."""
        return None if self._process is None else self._process.pid

    async def read_new(self, directory: str, places: Mapping[str, Place], max_bytes: int, max_points: int) -> Found:
        """See `reading.read_new`. Raises `ReadingFailed`; the next call starts afresh."""
        try:
            process = self._process or await self._start()
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await _ask(process, request_line(directory, places, max_bytes, max_points))
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            await self.close()
            raise ReadingFailed(f"the process that reads event files has ended ({type(error).__name__})") from error
        except asyncio.CancelledError:
            await self.close()  # its answer would be taken for the next one's
            raise

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _start(self) -> Process:
        # -P: what lies where the server was started is not the platform.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "modelyard.eventfiles"), stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        return self._process


async def _ask(process: Process, line: bytes) -> Found:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    await process.stdin.drain()
    head_bytes, body_bytes = LENGTHS.unpack(await process.stdout.readexactly(LENGTHS.size))
    if head_bytes + body_bytes > _MAX_FRAME_BYTES:
        raise ValueError("the answer is too long")
    return parse_answer(await process.stdout.readexactly(head_bytes), await process.stdout.readexactly(body_bytes))
