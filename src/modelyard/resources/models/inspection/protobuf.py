"""The wire format of protocol buffers, as far as finding fields needs it: messages are walked, what nobody asked for is passed over.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MAX_FIELDS = 400_000
_MAX_TEXT_BYTES = 64 * 1024
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5


class Malformed(Exception):
    """The bytes are no message."""


class TooManyFields(Exception):
    """There is more in it than an inspection looks at."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: its number, and its value: a whole number, or a region of the file."""

    number: int
    value: int
    region: Region | None = None

    @property
    def message(self) -> Region:
        """The region of a message, a text or bytes. Raises `Malformed` for numbers."""
        if self.region is None:
            raise Malformed(f"field {self.number} is a number")
        return self.region

    @property
    def text(self) -> str:
        """The value as text."""
        return self.message.content().decode("utf-8", "replace")

    @property
    def signed(self) -> int:
        """The value of an `int64`."""
        return self.value - (1 << 64) if self.value >> 63 else self.value


class Region:
    """A message that lies in a part of a file.

    Args:
        file: to be read and seeked in.
        begin, end: where it lies.
        budget: a list with one number, how many fields may still be read; shared by all regions of a file.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int, budget: list[int] | None = None) -> None:
        self._file = file
        self._begin = begin
        self._end = end
        self._budget = budget if budget is not None else [_MAX_FIELDS]

    @property
    def size(self) -> int:
        """Bytes."""
        return self._end - self._begin

    def fields(self, *wanted: int) -> Iterator[Field]:
        """The fields with these numbers (or all), in the order of the file. Raises `Malformed`, `TooManyFields`."""
        at = self._begin
        while at < self._end:
            self._budget[0] -= 1
            if self._budget[0] < 0:
                raise TooManyFields
            tag, at = self._varint(at)
            number, kind = tag >> 3, tag & 7
            value, region = 0, None
            if kind == _VARINT:
                value, at = self._varint(at)
            elif kind == _LEN:
                length, at = self._varint(at)
                region = Region(self._file, at, at + length, self._budget)
                at += length
            elif kind in (_I64, _I32):
                at += 8 if kind == _I64 else 4
            else:
                raise Malformed(f"wire type {kind}")
            if at > self._end or number == 0:
                raise Malformed("a field goes beyond its message")
            if not wanted or number in wanted:
                yield Field(number, value, region)

    def first(self, number: int) -> Field | None:
        """The first field with this number."""
        return next(self.fields(number), None)

    def text(self, number: int) -> str:
        """The text of the first field with this number, or an empty one."""
        field = self.first(number)
        return "" if field is None else field.text

    def content(self) -> bytes:
        """The bytes, where they are few."""
        if self.size > _MAX_TEXT_BYTES:
            raise Malformed("a name is too long")
        self._file.seek(self._begin)
        return self._file.read(self.size)

    def _varint(self, at: int) -> tuple[int, int]:
        self._file.seek(at)
        value = 0
        for index, byte in enumerate(self._file.read(min(10, self._end - at))):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value & ((1 << 64) - 1), at + index + 1
        raise Malformed("a number has no end")
