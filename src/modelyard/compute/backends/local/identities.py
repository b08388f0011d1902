"""Numbers of users and groups: a user for each workload, a group for each project.

A number is claimed under a lock and written down, so that every instance of a workload has the same user, at any time and in any
process of the platform. Users are given back when the last instance of the workload is removed; groups are kept, because the files
of a project's cache and network directories belong to them.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from modelyard.kit.errors import RetryLater


class Identities:
    """Claims numbers from `first` on, `count` of them, for names; the register is the directory `root`."""

    def __init__(self, root: Path, first: int, count: int) -> None:
        self._root = root
        self._first = first
        self._count = count

    def claim(self, name: str) -> int:
        """The number of this name, a new one if it has none. Raises RetryLater when all are taken."""
        with self._locked():
            if (number := self._number(name)) is not None:
                return number
            taken = {int(entry.name) for entry in (self._root / "numbers").iterdir()}
            start = zlib.crc32(name.encode())
            for step in range(self._count):
                number = self._first + (start + step) % self._count
                if number not in taken:
                    (self._root / "numbers" / str(number)).write_text(name)
                    self._by_name(name).write_text(str(number))
                    return number
            raise RetryLater(f"All {self._count} numbers for users or groups of workloads are taken.")

    def release(self, name: str) -> None:
        """Give the number of this name back; a name without one is fine."""
        with self._locked():
            if (number := self._number(name)) is not None:
                self._by_name(name).unlink()
                (self._root / "numbers" / str(number)).unlink(missing_ok=True)

    def _number(self, name: str) -> int | None:
        try:
            number = int(self._by_name(name).read_text())
            is_confirmed = (self._root / "numbers" / str(number)).read_text() == name
        except (OSError, ValueError):
            return None
        return number if is_confirmed else None

    def _by_name(self, name: str) -> Path:
        return self._root / "names" / name

    @contextmanager
    def _locked(self) -> Generator[None]:
        for part in ("numbers", "names"):
            (self._root / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
