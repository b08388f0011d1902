"""Identifiers of resources.

An id is a UUID of version 7 (RFC 9562, section 5.7): it begins with the time in milliseconds, so ids sort by creation and
an index on them stays dense. The official client limits ids to 36 characters, which is exactly a UUID's text.
"""

from __future__ import annotations

import hashlib
import os
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
    """A new, time-ordered, unguessable id of 36 lower-case characters; of this moment, or of now."""
    milliseconds = time.time_ns() // 1_000_000 if moment is None else _milliseconds(moment)
    random_bits = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | random_bits
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


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
