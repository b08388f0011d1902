"""Scalars out of one event, a serialised `tensorflow.Event`.

Only the few fields that scalars need are read; all else is stepped over by its length. Sources: `event.proto`, `summary.proto`,
`tensor.proto` and `tensor_shape.proto` of TensorFlow, and the Protocol Buffers encoding. What is read was written by users' programs: every
length is checked, nothing recurses, and whatever is no event at all is `NotAnEvent`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")
_HALF = struct.Struct("<e")
_SESSION_START = 1
_PLUGIN = b"scalars"
_2_63, _2_64 = 1 << 63, 1 << 64


class NotAnEvent(Exception):
    """The bytes are no serialised event."""


@dataclass(slots=True)
class Event:
    """What an event says of scalars.

    Attributes:
        wall_time: seconds since 1970.
        scalars: tag and value of each.
        is_restart: from `step` on, all that the same directory's files said before is void (`SummaryWriter(purge_step=…)`).
    """

    wall_time: float = 0.0
    step: int = 0
    scalars: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    is_restart: bool = False


def read_event(content: bytes) -> Event:
    """Read a serialised event. Raises `NotAnEvent`."""
    event = Event()
    try:
        for number, kind, value in _fields(content, 0, len(content)):
            if number == 1 and kind == _FIXED64:
                event.wall_time = _DOUBLE.unpack_from(content, value)[0]
            elif number == 2 and kind == _VARINT:
                event.step = value - _2_64 if value >= _2_63 else value
            elif number == 5 and kind == _BYTES:
                event.scalars += _summary(content, *_span(content, value))
            elif number == 7 and kind == _BYTES:
                event.is_restart = _is_start(content, *_span(content, value))
    except (IndexError, struct.error) as error:
        raise NotAnEvent from error
    return event


def _summary(content: bytes, begin: int, end: int) -> Iterator[tuple[str, float]]:
    for number, kind, value in _fields(content, begin, end):
        if number == 1 and kind == _BYTES:
            scalar = _value(content, *_span(content, value))
            if scalar is not None:
                yield scalar


def _value(content: bytes, begin: int, end: int) -> tuple[str, float] | None:
    """One `Summary.Value`: of version 1 with a plain number, or of version 2 with a tensor of the plug-in "scalars"."""
    tag = b""
    simple: float | None = None
    tensor: tuple[int, int] | None = None
    plugin: bytes | None = None
    for number, kind, value in _fields(content, begin, end):
        if number == 1 and kind == _BYTES:
            first, last = _span(content, value)
            tag = content[first:last]
        elif number == 2 and kind == _FIXED32:
            simple = _FLOAT.unpack_from(content, value)[0]
        elif number == 8 and kind == _BYTES:
            tensor = _span(content, value)
        elif number == 9 and kind == _BYTES:
            plugin = _plugin_name(content, *_span(content, value))
    # A writer may leave the plug-in's name out after a tag's first value: then a tensor of one number is taken for one.
    if simple is None and tensor is not None and plugin in (None, _PLUGIN):
        simple = _tensor(content, *tensor)
    return None if simple is None or not tag else (tag.decode("utf-8", "replace"), simple)


def _plugin_name(content: bytes, begin: int, end: int) -> bytes | None:
    for number, kind, value in _fields(content, begin, end):
        if number == 1 and kind == _BYTES:
            first, last = _span(content, value)
            for inner, inner_kind, inner_value in _fields(content, first, last):
                if inner == 1 and inner_kind == _BYTES:
                    name_begin, name_end = _span(content, inner_value)
                    return content[name_begin:name_end]
    return None


def _tensor(content: bytes, begin: int, end: int) -> float | None:
    """The number in a tensor that holds exactly one."""
    data_type = 0
    numbers: list[float] = []
    raw = b""
    for number, kind, value in _fields(content, begin, end):
        if number == 1 and kind == _VARINT:
            data_type = value
        elif number == 2 and kind == _BYTES and not _is_single(content, *_span(content, value)):
            return None
        elif number == 4 and kind == _BYTES:
            first, last = _span(content, value)
            raw = content[first:last]
        elif number in _LISTS:
            numbers += _list(content, number, kind, value)
            if len(numbers) > 1:
                return None
    known = _TYPES.get(data_type)
    if known is None:
        return None
    if raw:
        return known.of_bytes(raw) if len(raw) == known.size else None
    return known.of_list(numbers[0]) if numbers else 0.0  # zero is what Protocol Buffers leave out


def _is_single(content: bytes, begin: int, end: int) -> bool:
    """Whether a shape has no dimension but those of size 1."""
    for number, kind, value in _fields(content, begin, end):
        if number == 2 and kind == _BYTES:
            first, last = _span(content, value)
            sizes = [size for inner, inner_kind, size in _fields(content, first, last) if (inner, inner_kind) == (1, 0)]
            if sizes != [1]:
                return False
    return True


def _list(content: bytes, number: int, kind: int, value: int) -> list[float]:
    """Up to two numbers of a repeated field, packed or not."""
    element, size = _LISTS[number]
    if kind == element:
        return [_element(content, element, value)]
    if kind != _BYTES:
        return []
    begin, end = _span(content, value)
    if element != _VARINT:
        return [_element(content, element, at) for at in range(begin, min(end, begin + 2 * size), size)]
    found: list[float] = []
    while begin < end and len(found) < 2:
        item, begin = _varint(content, begin)
        found.append(item)
    return found


def _element(content: bytes, kind: int, value: int) -> float:
    if kind == _VARINT:
        return value
    return (_FLOAT if kind == _FIXED32 else _DOUBLE).unpack_from(content, value)[0]


def _is_start(content: bytes, begin: int, end: int) -> bool:
    return any(
        number == 1 and kind == _VARINT and value == _SESSION_START
        for number, kind, value in _fields(content, begin, end)
    )


def _fields(content: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, wire type and value of each field: the number itself of a varint, else where the value begins."""
    while position < end:
        key, position = _varint(content, position)
        kind = key & 7
        begin = position
        if kind == _VARINT:
            begin, position = _varint(content, position)
        elif kind == _BYTES:
            length, after = _varint(content, position)
            position = after + length
        elif kind == _FIXED64:
            position += 8
        elif kind == _FIXED32:
            position += 4
        else:
            raise NotAnEvent
        if position > end:
            raise NotAnEvent
        yield key >> 3, kind, begin


def _span(content: bytes, position: int) -> tuple[int, int]:
    """Where the bytes of a length-delimited field begin and end."""
    length, begin = _varint(content, position)
    return begin, begin + length


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = content[position]
    position += 1
    if value < 0x80:
        return value, position
    value &= 0x7F
    shift = 7
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (_2_64 - 1), position
        shift += 7
        if shift > 63:
            raise NotAnEvent


@dataclass(frozen=True, slots=True)
class _Type:
    """A number type of tensors: its size in bytes, and how it is read from raw bytes and from a list's element."""

    size: int
    of_bytes: Callable[[bytes], float]
    of_list: Callable[[float], float] = float


def _signed(value: float) -> float:
    number = int(value)
    return float(number - _2_64 if number >= _2_63 else number)


def _half(value: float) -> float:
    return _HALF.unpack((int(value) & 0xFFFF).to_bytes(2, "little"))[0]


def _bfloat16(value: float) -> float:
    return _FLOAT.unpack(b"\0\0" + (int(value) & 0xFFFF).to_bytes(2, "little"))[0]


_LISTS = {5: (_FIXED32, 4), 6: (_FIXED64, 8), 7: (_VARINT, 0), 10: (_VARINT, 0), 13: (_VARINT, 0)}
"""Fields of a tensor that hold numbers (float, double, int, int64, half): wire type and size of an element."""

_TYPES = {
    1: _Type(4, lambda raw: _FLOAT.unpack(raw)[0]),
    2: _Type(8, lambda raw: _DOUBLE.unpack(raw)[0]),
    3: _Type(4, lambda raw: float(int.from_bytes(raw, "little", signed=True)), _signed),
    9: _Type(8, lambda raw: float(int.from_bytes(raw, "little", signed=True)), _signed),
    14: _Type(2, lambda raw: _FLOAT.unpack(b"\0\0" + raw)[0], _bfloat16),
    19: _Type(2, lambda raw: _HALF.unpack(raw)[0], _half),
}
"""By TensorFlow's number of the type: float, double, int32, int64, bfloat16, half."""
