"""How long to wait after failed sign-ins. Pure.

Failures are counted three times: for a name from one address, for an address, for a name from anywhere. The first is strict, since it hits the one
who guesses. The last is mild and short: whoever guesses from many addresses must not be able to lock an honest user out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Bucket:
    """One way to count. `free` failures cost nothing; each one more doubles the wait, up to `longest_seconds`."""

    key: str
    free: int
    longest_seconds: int


@dataclass(frozen=True, slots=True)
class Failures:
    """What was counted, and when the last one was."""

    count: int
    last_at: datetime


FORGET_AFTER = timedelta(minutes=15)


def buckets(name: str, address: str) -> tuple[Bucket, ...]:
    """Where a failure of this name from this address counts; the first one is forgotten by a success."""
    name = name.strip().lower()
    return (
        Bucket(_key("pair", name, address), free=5, longest_seconds=300),
        Bucket(_key("address", address), free=50, longest_seconds=60),
        Bucket(_key("name", name), free=100, longest_seconds=15),
    )


def wait_seconds(seen: Iterable[tuple[Bucket, Failures | None]], now: datetime) -> int:
    """Seconds until the next try is looked at; 0 for now."""
    longest = timedelta(0)
    for bucket, failures in seen:
        if failures is None or failures.count < bucket.free or now - failures.last_at > FORGET_AFTER:
            continue
        doublings = min(failures.count - bucket.free, 20)
        wait = timedelta(seconds=min(2**doublings, bucket.longest_seconds))
        longest = max(longest, failures.last_at + wait - now)
    return -int(-longest.total_seconds() // 1)


def one_more(before: Failures | None, now: datetime) -> Failures:
    """The count after another failure."""
    if before is None or now - before.last_at > FORGET_AFTER:
        return Failures(1, now)
    return Failures(before.count + 1, now)


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()
