"""Identifiers of resources.

An id is a UUID of version 7 (RFC 9562, section 5.7): it begins with the time in milliseconds, so ids sort by creation and
an index on them stays dense. The official client limits ids to 36 characters, which is exactly a UUID's text.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

MAX_IDEMPOTENCY_KEY_CHARACTERS = 255
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's name for one request, and the digest of what it asked for (64 hex digits)."""

    value: str
    request_digest: str

    @staticmethod
    def of(value: str, path: str, body: bytes) -> IdempotencyKey:
        """The key of a request."""
        return IdempotencyKey(value, hashlib.sha256(path.encode() + b"\0" + body).hexdigest())


def new_id(moment: datetime | None = None) -> str:
    """A new, time-ordered, unguessable id of 36 lower-case characters; of this moment, or of now.

    Each id of now is greater than all that this process has made before, also within a millisecond and when the clock is set back: the twelve
    bits after the milliseconds are their fraction (RFC 9562, section 6.2, method 3). So what is made together sorts in the order in which it was.
    """
    ticks = _clock.next() if moment is None else _milliseconds(moment) << 12 | int.from_bytes(os.urandom(2)) >> 4
    value = (ticks >> 12 & (1 << 48) - 1) << 80 | 0x7 << 76 | (ticks & 0xFFF) << 64
    value |= 0x2 << 62 | int.from_bytes(os.urandom(8)) >> 2
    return str(uuid.UUID(int=value))


class _Clock:
    """Moments in 4096ths of a millisecond, none of them told twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, (time.time_ns() << 12) // 1_000_000)
            return self._last


_clock = _Clock()


def first_id(moment: datetime) -> str:
    """No id made at this moment or later is smaller, and none made before is as great (to the millisecond)."""
    text = f"{max(0, min(_milliseconds(moment), (1 << 48) - 1)):012x}"
    return f"{text[:8]}-{text[8:]}-7000-8000-000000000000"


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def is_id(text: str) -> bool:
    """Whether the text has the form of an id (any UUID, lower case, with dashes)."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
