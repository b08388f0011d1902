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

MAX_IDEMPOTENCY_KEY_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's name for one request, and the digest of what it asked for (64 hex digits)."""

    value: str
    request_digest: str

    @staticmethod
    def of(value: str, path: str, body: bytes) -> IdempotencyKey:
        """The key of a request."""
        return IdempotencyKey(value, hashlib.sha256(path.encode() + b"\0" + body).hexdigest())


def new_id() -> str:
    """A new, time-ordered, unguessable id of 36 lower-case characters."""
    milliseconds = time.time_ns() // 1_000_000
    random_bits = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | random_bits
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def is_id(text: str) -> bool:
    """Whether the text has the form of an id (any UUID, lower case, with dashes)."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
