"""A clock that a test can move forward."""

from __future__ import annotations

from datetime import datetime, timedelta

from modelyard.kit.clock import utc_now


class ShiftedClock:
    """The real time plus what a test has added: nothing has to be waited for, and moments taken elsewhere are never in its future."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        """The time, in UTC."""
        return utc_now() + self._ahead

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self._ahead += timedelta(seconds=seconds)
