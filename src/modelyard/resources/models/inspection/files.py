"""An artifact's files as something to read from: seekable, a block at a time, never more than a budget of bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import BinaryIO, cast

BUDGET_BYTES = 48 * 1024 * 1024
"""So much is read of one artifact, however large it is."""

_BLOCK_BYTES = 128 * 1024

ReadRange = Callable[[str, int, int], bytes]
"""Bytes of a file: its name, the offset, how many."""


class BudgetSpent(Exception):
    """Looking further would read more than an inspection may."""


class Files:
    """Names and sizes (bytes), and what is in them.

    Args:
        sizes: by name, relative to the artifact, with `/` between the parts.
        read: answers ranges.
        budget_bytes: how much may be read in all.
    """

    def __init__(self, sizes: Mapping[str, int], read: ReadRange, budget_bytes: int = BUDGET_BYTES) -> None:
        self.sizes = dict(sizes)
        self._read = read
        self._left = budget_bytes

    def open(self, name: str) -> BinaryIO:
        """A file to read and seek in. Reading raises `BudgetSpent`."""
        raw = _Range(self.sizes[name], lambda offset, length: self._take(name, offset, length))
        return cast("BinaryIO", io.BufferedReader(raw, _BLOCK_BYTES))

    def head(self, name: str, length: int) -> bytes:
        """The first bytes of a file."""
        return self._take(name, 0, min(length, self.sizes[name]))

    def tail(self, name: str, length: int) -> bytes:
        """The last bytes of a file."""
        size = self.sizes[name]
        begin = max(0, size - length)
        return self._take(name, begin, size - begin)

    def _take(self, name: str, offset: int, length: int) -> bytes:
        self._left -= length
        if self._left < 0:
            raise BudgetSpent
        return self._read(name, offset, length) if length else b""


class _Range(io.RawIOBase):
    def __init__(self, size: int, take: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size = size
        self._take = take
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")
        data = self._take(self._at, max(0, min(len(view), self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
