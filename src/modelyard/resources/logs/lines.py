"""Cuts an instance's output into the lines that are kept, whatever was printed.

Pure: a line's beginning decides where it ends, so output that is read again (after a crash of the server) is cut at the same places. Three
things are not simply lines. A line without an end is cut into pieces, and left out from a limit on, so that nobody has to hold it. A
progress bar rewrites its line with carriage returns: what it showed last is the line. Bytes that are no text become `�`.
"""

from __future__ import annotations

from typing import NamedTuple

PIECE_BYTES = 64 * 1024
"""Longer lines are kept in pieces of this size."""

LINE_BYTES = 1024 * 1024
"""From here on the rest of a line is left out."""

MOST_LINES = 10_000
"""So many lines at once, so that a megabyte of tiny ones is not half a gigabyte of objects."""


class CutLine(NamedTuple):
    """A line: the offset of its first byte, and its text."""

    position: int
    body: str


class Cut(NamedTuple):
    """What was found in a piece of output.

    Attributes:
        lines: in order.
        consumed: bytes that need not be read again.
        open_bytes: how much of a line that goes on after them has been passed already.
    """

    lines: list[CutLine]
    consumed: int
    open_bytes: int


def cut(data: bytes, offset: int, open_bytes: int = 0, *, is_end: bool) -> Cut:
    """Cut output that was read from `offset` on.

    Args:
        open_bytes: of the cut before, when this one continues it.
        is_end: nothing follows, so an unfinished line is one.
    """
    lines: list[CutLine] = []
    begin = 0
    while begin < len(data) and len(lines) < MOST_LINES:
        if open_bytes >= LINE_BYTES:
            newline = data.find(b"\n", begin)
            begin = len(data) if newline < 0 else newline + 1
            open_bytes = open_bytes if newline < 0 else 0
            continue
        end, following = line_end(data, begin, is_end=is_end)
        if following == begin:
            break
        text = _last_state(data[begin:end])
        if text.strip():
            lines.append(CutLine(offset + begin, text.decode("utf-8", errors="replace").replace("\x00", "�")))
        open_bytes = open_bytes + following - begin if following == end else 0
        if open_bytes >= LINE_BYTES:
            lines.append(CutLine(offset + following, LEFT_OUT))
        begin = following
    return Cut(lines, begin, open_bytes)


LEFT_OUT = (
    f"[modelyard] this line is longer than {LINE_BYTES >> 20} MiB: its rest is left out here (the output of the run "
    "itself has it)"
)


def line_end(data: bytes, begin: int, *, is_end: bool) -> tuple[int, int]:
    """Where the line (or piece of one) that begins there ends, and where the next begins; (begin, begin) while it is not all there."""
    newline = data.find(b"\n", begin, begin + PIECE_BYTES)
    if newline >= 0:
        return newline, newline + 1
    if len(data) - begin > PIECE_BYTES:
        back = data.rfind(b"\r", begin + 1, begin + PIECE_BYTES)
        if back > 0:
            return back, back + 1
        end = begin + _whole_characters(data[begin : begin + PIECE_BYTES])
        return end, end
    return (len(data), len(data)) if is_end else (begin, begin)


def _last_state(raw: bytes) -> bytes:
    """What stood on the screen when the line ended: the last of its states that shows anything."""
    if b"\r" not in raw:
        return raw
    return next((state for state in reversed(raw.split(b"\r")) if state.strip()), b"")


def _whole_characters(piece: bytes) -> int:
    """How much of a piece to take so that no UTF-8 character is cut (RFC 3629: at most three bytes of one can be missing)."""
    for back in range(1, 4):
        byte = piece[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(piece) - back if length > back else len(piece)
        if byte < 0x80:
            break
    return len(piece)
