"""Heads of HTTP/1.1 messages: bytes of a request in, what it says; what an answer says, its bytes out. Pure, but for the date.

Source: https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote

WITHOUT_BODY = (204, 304)
"""Statuses whose answers have none."""

_LETTER = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE = re.compile(rf"({_LETTER}{{1,32}}) ([!-~]+) HTTP/1\.([01])\r\n".encode())
_FIELD = re.compile(rf"({_LETTER}+):[ \t]*([^\r\n\0]*?)[ \t]*\r\n".encode())
_NAME = re.compile(f"{_LETTER}+")
_UNSAFE = re.compile(r"[\r\n\0]")
# The server alone frames its answers, whatever a handler of the user's says.
_FRAMING = ("content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer")
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus if status.value >= 200
}


class MalformedRequest(Exception):
    """What came is no request, or has more than one reading, of which the second could hide another request."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Head(NamedTuple):
    """What a request says before its body.

    Attributes:
        method: as sent.
        path: percent-decoded, without the query.
        headers: by name in lower case; fields that came more than once are joined by commas.
        is_kept: whether the client would ask again over this connection.
    """

    method: str
    path: str
    headers: dict[str, str]
    is_kept: bool


def read_head(text: bytes) -> Head:
    """The head of a request, with the line's end of its last field. Raises `MalformedRequest`."""
    line = _REQUEST_LINE.match(text)
    if line is None:
        raise MalformedRequest(400, "this is not a request of HTTP/1.1")
    headers: dict[str, str] = {}
    at = line.end()
    for field in _FIELD.finditer(text, at):
        if field.start() != at:
            break
        at = field.end()
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if at != len(text):
        raise MalformedRequest(400, "a header of the request is malformed")
    target = line[2].decode("ascii")
    if not target.startswith("/"):  # what a client sends to a proxy
        target = "/" + target.partition("://")[2].partition("/")[2]
    path = target.partition("?")[0]
    is_kept = line[3] == b"1" and "close" not in headers.get("connection", "").lower()
    return Head(line[1].decode("ascii"), unquote(path) if "%" in path else path, headers, is_kept)


def read_frame(headers: Mapping[str, str]) -> int | None:
    """How many bytes the body has; None where it comes in chunks. Raises `MalformedRequest`."""
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None:
            raise MalformedRequest(400, "a request has a content-length or a transfer-encoding, not both")
        if coding.lower() != "chunked":
            raise MalformedRequest(501, "the only transfer-encoding that is read is 'chunked'")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit() and len(length) < 16):
        raise MalformedRequest(400, "the content-length is not a number of bytes")
    return int(length)


def write_head(status: int, headers: Iterable[tuple[str, str]], length: int | None, *, is_kept: bool) -> bytes:
    """The head of an answer whose body has so many bytes (None: there is none)."""
    lines = [_STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n", "date: ", _date()]
    for name, value in headers:
        if name.lower() not in _FRAMING and _NAME.fullmatch(name):  # a handler's own headers may be anything
            lines += ("\r\n", name, ": ", _UNSAFE.sub(" ", value) if _UNSAFE.search(value) else value)
    if not is_kept:
        lines.append("\r\nconnection: close")
    lines.append("\r\n\r\n" if length is None else f"\r\ncontent-length: {length}\r\n\r\n")
    return "".join(lines).encode("latin-1", "replace")


_dated = (0, "")


def _date() -> str:
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)))
    return _dated[1]
