"""Output and history in wire form, for the routers of all resources that have them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from modelyard.compute.port import LogChunk
from modelyard.control.events import Event
from modelyard.resources.logs.schemas import EventOut, OutputOut

_POLL_SECONDS = 0.2

Piece = TypeVar("Piece", bound=LogChunk)


@dataclass(frozen=True, slots=True)
class AttemptOutput(LogChunk):
    """A piece of the output of one of several attempts."""

    attempt: int


async def follow(read: Callable[[], Awaitable[Piece]], wait_seconds: float) -> Piece:
    """A piece of output; if there is nothing new yet, wait up to `wait_seconds` for it."""
    deadline = monotonic() + wait_seconds
    while True:
        chunk = await read()
        if chunk.data or chunk.is_end or monotonic() >= deadline:
            return chunk
        await asyncio.sleep(_POLL_SECONDS)


def output_out(chunk: LogChunk) -> OutputOut:
    """The wire form. A character cut at the end of the piece is left for the next one."""
    data = chunk.data if chunk.is_end else _whole_characters(chunk.data)
    cut = len(chunk.data) - len(data)
    return OutputOut(
        text=data.decode("utf-8", errors="replace"),
        offset=chunk.offset,
        next_offset=chunk.next_offset - cut,
        is_end=chunk.is_end,
        attempt=chunk.attempt if isinstance(chunk, AttemptOutput) else None,
    )


def events_out(events: Sequence[Event]) -> list[EventOut]:
    """The wire form of a history."""
    return [
        EventOut(
            time=event.at,
            actor=event.actor,
            old_status_code=event.old_state,
            new_status_code=event.new_state,
            status_reason=event.reason,
            status_message=event.message,
        )
        for event in events
    ]


def _whole_characters(data: bytes) -> bytes:
    """The data without a UTF-8 character that is cut at its end (RFC 3629: at most three bytes can be missing)."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return data
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            is_cut = length > back and len(data) > back
            return data[:-back] if is_cut else data
    return data
