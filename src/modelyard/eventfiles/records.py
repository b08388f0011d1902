"""The framing of event files: TFRecord.

A record is its length (8 bytes, little-endian), the masked CRC-32C of those 8 bytes, the content, and the masked CRC-32C of the content.
Source: `tensorflow/core/lib/io/record_writer.h`. A writer may be in the middle of a record, so what is not whole yet is not an error; what is
broken is stepped over, since one bad sector must not cost the rest of a run.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import google_crc32c

HEADER_BYTES = 12
FOOTER_BYTES = 4
MAX_RECORD_BYTES = 16 << 20
"""Larger records are graphs, images or audio; they are left to the caller, who steps over them unread."""

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_MAX_LENGTH = 1 << 40
_HIGH_ZEROS = b"\0\0\0"  # the upper bytes of any length below that: what a header is looked for by


_crc32c = cast("Callable[[bytes], int]", google_crc32c.value)  # pyright: ignore[reportUnknownMemberType]  # it has no types


@dataclass(frozen=True, slots=True)
class Records:
    """What a piece of a file holds.

    Attributes:
        contents: whole records, each with the offset (in the piece) after it.
        next_offset: where reading goes on.
        corrupt_bytes: how many bytes were stepped over because they were no sound record.
        wanted_bytes: how many bytes from `next_offset` on the next record takes, 0 where that is not known.
    """

    contents: list[tuple[bytes, int]]
    next_offset: int
    corrupt_bytes: int
    wanted_bytes: int


def masked_crc(content: bytes) -> int:
    """CRC-32C, rotated and shifted as TFRecord stores it."""
    crc = _crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def split(piece: bytes) -> Records:
    """The records at the beginning of `piece`, which begins where a record does (or where something broken lies)."""
    contents: list[tuple[bytes, int]] = []
    position = corrupt_bytes = 0
    end = len(piece)
    while position + HEADER_BYTES <= end:
        length, header_crc = _HEADER.unpack_from(piece, position)
        if length >= _MAX_LENGTH or masked_crc(piece[position : position + 8]) != header_crc:
            following = _next_header(piece, position + 1)
            corrupt_bytes += following - position
            position = following
            continue
        record_end = position + HEADER_BYTES + length + FOOTER_BYTES
        if record_end > end or length > MAX_RECORD_BYTES:
            return Records(contents, position, corrupt_bytes, record_end - position)
        content = piece[position + HEADER_BYTES : record_end - FOOTER_BYTES]
        if masked_crc(content) == _CRC.unpack_from(piece, record_end - FOOTER_BYTES)[0]:
            contents.append((content, record_end))
        else:
            corrupt_bytes += record_end - position
        position = record_end
    return Records(contents, position, corrupt_bytes, 0)


def _next_header(piece: bytes, position: int) -> int:
    """Where the next sound header begins, or as far as it is certain that none does."""
    last = len(piece) - HEADER_BYTES
    while position <= last:
        zeros = piece.find(_HIGH_ZEROS, position + 5, last + 8)
        if zeros < 0:
            break
        position = zeros - 5
        length, header_crc = _HEADER.unpack_from(piece, position)
        if length < _MAX_LENGTH and masked_crc(piece[position : position + 8]) == header_crc:
            return position
        position += 1
    return max(position, last + 1)
