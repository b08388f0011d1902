"""Time as a value that is passed in, so that nothing that decides by the clock has to wait for one in a test."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Answers the current time, always with the UTC offset set."""


def utc_now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)
