"""Writes event files by hand, so that tests can break them where they like."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from modelyard.eventfiles.records import masked_crc


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def bytes_field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def simple(tag: str, value: float) -> bytes:
    return bytes_field(1, bytes_field(1, tag.encode()) + b"\x15" + struct.pack("<f", value))


def tensor(tag: str, data_type: int, content: bytes, plugin: str | None = "scalars") -> bytes:
    metadata = b"" if plugin is None else bytes_field(9, bytes_field(1, bytes_field(1, plugin.encode())))
    inner = bytes_field(8, b"\x08" + varint(data_type) + content)
    return bytes_field(1, bytes_field(1, tag.encode()) + inner + metadata)


def event(step: int, time: float, *values: bytes, restart: bool = False) -> bytes:
    head = b"\x09" + struct.pack("<d", time) + b"\x10" + varint(step)
    session = bytes_field(7, b"\x08\x01") if restart else b""
    return head + (bytes_field(5, b"".join(values)) if values else b"") + session


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc(length)) + content + struct.pack("<I", masked_crc(content))


def scalars(step: int, values: Mapping[str, float], time: float | None = None) -> bytes:
    """A record of one event with plain scalars."""
    return record(event(step, 1.7e9 + step if time is None else time, *(simple(tag, v) for tag, v in values.items())))
