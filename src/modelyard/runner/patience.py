"""How long to try again: with growing pauses, for as long as nothing was heard, until the stop."""

from __future__ import annotations

import os
import time

from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import STORE_UNAVAILABLE, StepFailed
from modelyard.runner.stop import Stop

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 10.0
_SILENT_SECONDS = 1.0


class Transient(Exception):
    """A try failed in a way that may pass. `retry_after_seconds` is the server's own wish, 0 for none."""

    def __init__(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class Patience:
    """The pauses of one piece of work.

    Args:
        label: what is being reached, for sentences.
        limit_seconds: how long to go on without any success.
    """

    def __init__(self, label: str, limit_seconds: float, journal: Journal, stop: Stop) -> None:
        self._label = label
        self._limit_seconds = limit_seconds
        self._journal = journal
        self._stop = stop
        self._since: float | None = None
        self._pause = _FIRST_PAUSE_SECONDS

    def renew(self) -> None:
        """Something was received or taken: count from anew."""
        self._since = None
        self._pause = _FIRST_PAUSE_SECONDS

    def wait(self, what: str, failure: Transient) -> None:
        """Pause before the next try. Raises `StepFailed` when the time is up, `Stopped` on a stop."""
        self._stop.check()
        now = time.monotonic()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited >= self._limit_seconds:
            raise StepFailed(
                f"The object store could not {what} for {self._label}: {failure.reason}. It was tried again for "
                f"{self._limit_seconds:.0f} seconds.",
                STORE_UNAVAILABLE,
            )
        if waited >= _SILENT_SECONDS:
            left = self._limit_seconds - waited
            self._journal.complain(
                f"store {self._label}",
                f"The object store is not available for {self._label}: {failure.reason}. "
                f"Trying again for up to {left:.0f} more seconds.",
            )
        # Spread, so that eight threads (and many runs) don't come back in one wave.
        spread = 0.5 + os.urandom(1)[0] / 510
        pause = max(self._pause * spread, min(failure.retry_after_seconds, 60.0))
        self._pause = min(self._pause * 2.0, _LONGEST_PAUSE_SECONDS)
        self._stop.sleep(min(pause, max(self._limit_seconds - waited, 0.05)))
