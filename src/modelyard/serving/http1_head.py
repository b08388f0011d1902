"""Heads of HTTP/1.1 requests and answers. Pure, but for the date.

Source: https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from http import HTTPStatus

WITHOUT_BODY = (204, 304)
"""Statuses whose answers have none."""

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_UNSAFE = re.compile(r"[\r\n\0]")
# The server alone frames its answers, whatever a handler of the user's says.
_FRAMING = ("content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer")
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus if status.value >= 200
}


_keys: dict[bytes, str] = {}
_MOST_KEYS = 512


def read_fields(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name in lower case; those that came more than once are joined by commas (RFC 9110, 5.3)."""
    headers: dict[str, str] = {}
    for name, value in fields:
        key = _keys.get(name) or _key_of(name)
        text = value.decode("latin-1").strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _key_of(name: bytes) -> str:
    """A header's name in lower case. Clients use few names, so these are remembered."""
    key = name.decode("latin-1").lower()
    if len(_keys) < _MOST_KEYS:
        _keys[name] = key
    return key


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
