"""How long to wait before the next try."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off: `base_seconds`, doubled with each failure, at most `limit_seconds`."""

    base_seconds: float = 0.2
    limit_seconds: float = 60.0

    def delay_seconds(self, attempts: int) -> float:
        """The wait after the given number of failures in a row (1 or more), in seconds."""
        if attempts < 1:
            return 0.0
        return min(self.limit_seconds, self.base_seconds * 2.0 ** min(attempts - 1, 30))
