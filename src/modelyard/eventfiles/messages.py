"""How the reading process and its caller talk: a line of JSON in, a frame out.

A frame is the length of its head and of its body (4 bytes each, little-endian), the head as JSON, and the body: the columns of all pieces, one
piece after the other, as plain arrays of the machine.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Mapping
from typing import Any

from modelyard.eventfiles.reading import Found, Piece, Place, Points

LENGTHS = struct.Struct("<II")
_COLUMNS = (("series", "i"), ("steps", "q"), ("times", "q"), ("values", "d"))


class ReadingFailed(Exception):
    """The reading process could not do what was asked; the message says why."""


def request_line(directory: str, places: Mapping[str, Place], max_bytes: int, max_points: int) -> bytes:
    """What the process is asked."""
    known = {path: (place.inode, place.offset) for path, place in places.items()}
    return json.dumps([directory, known, max_bytes, max_points]).encode() + b"\n"


def parse_request(line: bytes) -> tuple[str, dict[str, Place], int, int]:
    """The other side of `request_line`."""
    directory, known, max_bytes, max_points = json.loads(line)
    places = {path: Place(inode, offset) for path, (inode, offset) in known.items()}
    return directory, places, max_bytes, max_points


def answer_frame(found: Found) -> bytes:
    """What the process answers."""
    heads: list[dict[str, Any]] = []
    columns: list[bytes] = []
    for piece in found.pieces:
        heads.append(
            {
                "path": piece.path,
                "inode": piece.inode,
                "begin": piece.begin,
                "end": piece.end,
                "size": piece.size,
                "restart_step": piece.restart_step,
                "corrupt_bytes": piece.corrupt_bytes,
                "bad_events": piece.bad_events,
                "long_names": piece.long_names,
                "names": piece.points.names,
                "count": len(piece.points),
            }
        )
        columns += [getattr(piece.points, name).tobytes() for name, _ in _COLUMNS]
    return _frame({"pieces": heads, "has_more": found.has_more, "notes": found.notes}, b"".join(columns))


def failure_frame(reason: str) -> bytes:
    """The answer where something went wrong that is no fault of a file."""
    return _frame({"failure": reason}, b"")


def parse_answer(head: bytes, body: bytes) -> Found:
    """The other side of `answer_frame`. Raises `ReadingFailed`."""
    fields = json.loads(head)
    if "failure" in fields:
        raise ReadingFailed(fields["failure"])
    pieces: list[Piece] = []
    position = 0
    for each in fields["pieces"]:
        count = each.pop("count")
        points = Points(names=each.pop("names"))
        for name, code in _COLUMNS:
            column: array[Any] = array(code)
            end = position + count * column.itemsize
            column.frombytes(body[position:end])
            position = end
            setattr(points, name, column)
        pieces.append(Piece(**each, points=points))
    return Found(pieces, fields["has_more"], fields["notes"])


def _frame(head: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(head).encode()
    return LENGTHS.pack(len(text), len(body)) + text + body
