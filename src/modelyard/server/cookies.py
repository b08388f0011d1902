"""The cookies that the platform keeps in browsers: their names, how they are written, and how they are taken out of what users' code sees.

Over HTTPS their names begin with `__Host-` (RFC 6265bis, section 4.1.3): no other origin, not even one below the same domain, can then plant
one. Over HTTP browsers have no such promise; that door is for this machine alone.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum

from modelyard.kit.clock import utc_now

PREFIX = "modelyard_"


class Cookie(StrEnum):
    """SESSION: the sign-in, main origin alone. VISIT: the right to one thing, on its origin alone. STATE: ties a way to a visit to one browser.
    FORM: ties a form to one browser."""

    SESSION = f"{PREFIX}session"
    VISIT = f"{PREFIX}visit"
    STATE = f"{PREFIX}state"
    FORM = f"{PREFIX}form"


_OURS = re.compile(rf"(?:^|[;,])\s*(?:__Host-|__Secure-)?{PREFIX}[a-z]+=[^;,]*")


def cookie_value(header: str, cookie: Cookie, *, is_secure: bool, path: str = "/") -> str | None:
    """The value of a cookie in the `cookie` header; the last one where there are several of the name."""
    name = _name(cookie, is_secure=is_secure, path=path)
    found = None
    for part in re.split(r"[;,]", header):
        key, separator, value = part.strip().partition("=")
        if separator and key == name:
            found = value.strip()
    return found or None


def without_ours(header: str) -> str:
    """The `cookie` header without any of the platform's; empty when nothing is left."""
    return _OURS.sub("", header).strip().lstrip(";,").strip()


def set_cookie(cookie: Cookie, value: str, *, is_secure: bool, until: datetime | None = None, path: str = "/") -> str:
    """A `set-cookie` header. An empty value removes the cookie; without `until` it ends with the browser."""
    name = _name(cookie, is_secure=is_secure, path=path)
    age = ""
    if not value:
        age = "; Max-Age=0"
    elif until is not None:
        age = f"; Max-Age={max(0, int((until - utc_now()).total_seconds()))}"
    return f"{name}={value}; Path={path}; HttpOnly; SameSite=Lax{age}{'; Secure' if is_secure else ''}"


def _name(cookie: Cookie, *, is_secure: bool, path: str) -> str:
    if not is_secure:
        return cookie.value
    return f"__Host-{cookie.value}" if path == "/" else f"__Secure-{cookie.value}"  # __Host- is for whole origins
