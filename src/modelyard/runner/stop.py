"""The request to end: how a signal reaches every loop, thread and child of the runner.

A signal's handler runs between any two instructions of the main thread, so it takes no lock: it sets a flag that loops look at, and
calls one hook, which kills children.
"""

from __future__ import annotations

import time

from modelyard.runner.outcomes import Stopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import FrameType
else:
    import _signal as signal  # the module `signal` makes enums of its constants

_SLICE_SECONDS = 0.1


class Stop:
    """Whether the work should end. A child is also set when its parent is, and can be set alone (one failure ends its siblings)."""

    def __init__(self, parent: Stop | None = None) -> None:
        self._parent = parent
        self._is_set = False
        self.hook: Callable[[int], None] | None = None
        """Called by the signal handler with the number of requests so far (1, 2, …)."""
        self.request_count = 0

    @property
    def is_requested(self) -> bool:
        """Whether to end as soon as possible."""
        return self._is_set or (self._parent is not None and self._parent.is_requested)

    def request(self) -> None:
        """Ask for the end."""
        self._is_set = True

    def check(self) -> None:
        """Raise `Stopped` when the end was asked for."""
        if self.is_requested:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the request: then `Stopped` is raised."""
        end = time.monotonic() + seconds
        while True:
            self.check()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _SLICE_SECONDS))

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as the request, from now on. For the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.request()
        self.request_count += 1
        if self.hook is not None:
            self.hook(self.request_count)
