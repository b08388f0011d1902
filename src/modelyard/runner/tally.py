"""Counting what a crew has moved."""

from __future__ import annotations

import _thread
import time

from modelyard.runner.figures import format_bytes, format_rate


class Tally:
    """Files and bytes so far, of how many. Safe to use from several threads; bytes may be negative when a file starts again."""

    def __init__(self, files_total: int, bytes_total: int) -> None:
        self._lock = _thread.allocate_lock()
        self._begun = time.monotonic()
        self._files_total = files_total
        self._bytes_total = bytes_total
        self.files_count = 0
        self.bytes_count = 0

    def add_bytes(self, count: int) -> None:
        """Bytes were moved."""
        with self._lock:
            self.bytes_count += count

    def add_file(self) -> None:
        """A file is complete."""
        with self._lock:
            self.files_count += 1

    @property
    def fraction(self) -> float:
        """How much is done, 0 to 1: by bytes, with each file counting a little so that empty ones show too."""
        total = self._bytes_total + 1000 * self._files_total
        return min(1.0, (self.bytes_count + 1000 * self.files_count) / total) if total else 1.0

    def so_far(self) -> str:
        """A line of figures."""
        seconds = time.monotonic() - self._begun
        return (
            f"{self.files_count} of {self._files_total} files, {format_bytes(self.bytes_count)} of "
            f"{format_bytes(self._bytes_total)}{format_rate(self.bytes_count, seconds)}"
        )
