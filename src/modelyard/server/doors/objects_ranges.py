"""The `Range` header and answers with parts of an object.

Source: RFC 9110, section 14, with Swift's choices where the standard leaves one.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import combinations, pairwise

MAX_RANGES = 50
MAX_OVERLAPS = 2
MAX_UNORDERED_RANGES = 8

Span = tuple[int, int]


def parse_ranges(header: str | None) -> list[tuple[int | None, int | None]] | None:
    """First and last positions as written; None where there is no range or one that can't be read (it is then ignored)."""
    if not header:
        return None
    text = header.replace(" ", "")
    if not text.lower().startswith("bytes="):
        return None
    found: list[tuple[int | None, int | None]] = []
    for part in text[len("bytes=") :].split(","):
        first, dash, last = part.partition("-")
        if not dash or not (first or last) or not all(_is_number(number) for number in (first, last) if number):
            return None
        start, end = (int(first) if first else None), (int(last) if last else None)
        if start is not None and end is not None and end < start:
            return None
        found.append((start, end))
    return found


def spans(ranges: Sequence[tuple[int | None, int | None]], size: int) -> list[Span]:
    """The parts of `size` bytes that the ranges mean, as start and exclusive end; empty where none can be satisfied.

    Too many ranges, or too many that overlap, count as unsatisfiable: they multiply what is sent.
    """
    found: list[Span] = []
    for first, last in ranges:
        if first is None:
            if last:
                found.append((max(size - last, 0), size))
        elif first < size:
            found.append((first, size if last is None else min(last + 1, size)))
    return [] if _is_excessive(found) else found


def multipart(
    parts: Sequence[Span], size: int, content_type: str, read: Callable[[int, int], AsyncIterator[bytes]]
) -> tuple[str, int, AsyncIterator[bytes]]:
    """An answer of several parts: its boundary, its length in bytes, and its pieces. `read` gives the bytes of a span."""
    boundary = secrets.token_hex(16)
    heads = [
        f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: bytes {start}-{end - 1}/{size}\r\n\r\n".encode(
            "latin-1"
        )
        for start, end in parts
    ]
    end_line = f"--{boundary}--".encode()
    length = sum(len(head) + end - start + 2 for head, (start, end) in zip(heads, parts, strict=True)) + len(end_line)

    async def pieces() -> AsyncIterator[bytes]:
        for head, (start, end) in zip(heads, parts, strict=True):
            yield head
            async for piece in read(start, end):
                yield piece
            yield b"\r\n"
        yield end_line

    return boundary, length, pieces()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def _is_excessive(parts: Sequence[Span]) -> bool:
    if len(parts) > MAX_RANGES:
        return True
    is_ascending = all(first[0] <= second[0] for first, second in pairwise(parts))
    if not is_ascending and len(parts) >= MAX_UNORDERED_RANGES:
        return True
    return sum(1 for first, second in combinations(parts, 2) if _overlap(first, second)) > MAX_OVERLAPS


def _overlap(first: Span, second: Span) -> bool:
    # Equal spans don't count: Swift's comparison is strict on both sides.
    return any(low < point < high for (low, high), points in ((first, second), (second, first)) for point in points)
