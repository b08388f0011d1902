"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FakeClock:
    """A `Clock` (`modelyard.kit.clock`): call it for the time."""

    def __init__(self, now: datetime | None = None) -> None:
        self.now = now or datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        """The time that it stands at."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it forward."""
        self.now += timedelta(seconds=seconds)
