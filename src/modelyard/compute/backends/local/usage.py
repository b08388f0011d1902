"""How much disk an instance's own directories take, measured without holding up the supervisor.

No mechanism that limits a directory works on every file system and without root, so where there is none the supervisor looks for itself,
in a forked child of low priority. What costs nothing is asked twice a second: how much is free on the whole file system. Only when so
much of that has gone that the instance could be over its limit, and now and then in any case, all its files are added up. Standard
library only, light parts only.
"""

# Plain `os` calls on purpose: pathlib costs a third of the supervisor's whole start.
from __future__ import annotations

import os
import time

_BLOCK_BYTES = 512
_REST_FACTOR = 20.0
_GLANCE_SECONDS = 0.5


class StorageGauge:
    """Compares what `directories` take with `limit_bytes` (None: never looks)."""

    def __init__(self, directories: list[str], limit_bytes: int | None, interval_seconds: float) -> None:
        self._directories = directories
        self._limit_bytes = limit_bytes
        self._interval_seconds = interval_seconds
        self._began = time.monotonic()
        self._due_at = self._began + interval_seconds
        self._earliest = self._glance_at = self._began + _GLANCE_SECONDS
        self._free_bytes = self._free()
        self.descriptor = -1
        self.is_done = False
        self.used_bytes = 0

    @property
    def is_exceeded(self) -> bool:
        """Whether the last look found more than the limit."""
        return self._limit_bytes is not None and self.used_bytes > self._limit_bytes

    @property
    def due_at(self) -> float | None:
        """The moment (`time.monotonic`) to ask again whether a look is due, None while one goes on or none is wanted."""
        return None if self._limit_bytes is None or self.descriptor != -1 else min(self._due_at, self._glance_at)

    def is_due(self, now: float) -> bool:
        """Whether it is time to look again: it was long ago, or enough was written since then, by whomever."""
        if self._limit_bytes is None or self.due_at is None or now < self.due_at:
            return False
        self._glance_at = now + _GLANCE_SECONDS
        could_be_over = self.used_bytes + self._free_bytes - self._free() > self._limit_bytes
        return now >= self._due_at or (could_be_over and now >= self._earliest)

    def _free(self) -> int:
        """Bytes that are free on the file system."""
        try:
            found = os.statvfs(self._directories[0]) if self._directories else None
        except OSError:
            return 0
        return found.f_bfree * found.f_frsize if found is not None else 0

    def start(self) -> int:
        """Begin to look; answers a descriptor that becomes readable when the answer is there."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self._began = time.monotonic()
        self._free_bytes = self._free()
        if os.fork() == 0:
            try:
                os.nice(19)
                os.write(write_end, b"%d" % sum(map(disk_bytes, self._directories)))
            finally:
                os._exit(0)
        os.close(write_end)
        self.descriptor = read_end
        return read_end

    def read(self) -> None:
        """Take the answer."""
        digits = os.read(self.descriptor, 64)
        if digits.isdigit():
            self.used_bytes = int(digits)
        self.is_done = True

    def close(self) -> int:
        """Get ready for the next look; answers the descriptor that is closed now."""
        now = time.monotonic()
        descriptor, self.descriptor, self.is_done = self.descriptor, -1, False
        self._due_at = now + max(self._interval_seconds, (now - self._began) * _REST_FACTOR)
        self._earliest = now + (now - self._began) * _REST_FACTOR
        os.close(descriptor)
        return descriptor


def disk_bytes(directory: str) -> int:
    """Bytes on disk of everything below; links are not followed, files with several names count once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [directory]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    if status.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if (status.st_dev, status.st_ino) in seen:
                            continue
                        seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * _BLOCK_BYTES
        except OSError:
            continue
    return total
