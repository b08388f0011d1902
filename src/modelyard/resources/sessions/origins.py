"""Where browsers find things: the main origin, on which people sign in, and an origin of its own for each notebook and TensorBoard.

What runs there is users' code. An origin of its own keeps its pages from reading anything of the platform's or of one another; a path on the
main origin does not, and is there only for installations that can't have names (`is_by_path`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

Scheme = Literal["http", "https"]

LABELS: Mapping[str, str] = {"notebook": "nb", "tensorboard": "tb"}
"""The kinds of things that have an origin of their own, and the label below which it lies."""

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the gateway a thing lies: what `host` and `prefix` of its route are to be."""

    host: str | None
    prefix: str


@dataclass(frozen=True, slots=True)
class Origins:
    """Makes addresses.

    Attributes:
        http, https: the main origin for callers of either kind, without a slash at the end. Both are the same where people reach the platform
            by one name.
        usual: which of them stands in addresses that nobody asked for over HTTP.
        domain: things lie on `{id}.nb.{domain}` and so on.
        is_by_path: they lie on the main origin instead, below `/~{kind}/{id}`.
    """

    http: str
    https: str
    usual: Scheme = "http"
    domain: str = "localhost"
    is_by_path: bool = False

    def main(self, scheme: Scheme | None = None) -> str:
        """The main origin."""
        return self.https if (scheme or self.usual) == "https" else self.http

    def place(self, kind: str, id: str) -> Place:
        """Where the route of a thing has to be put."""
        if self.is_by_path:
            return Place(None, f"/~{kind}/{id}")
        return Place(f"{id}.{LABELS[kind]}.{self.domain}", "")

    def url(self, kind: str, id: str, path: str = "/", scheme: Scheme | None = None) -> str:
        """The address of a thing; `path` begins with a slash and is sent as it is."""
        main, place = self.main(scheme), self.place(kind, id)
        if place.host is None:
            return f"{main}{place.prefix}{path}"
        main_scheme, _, authority = main.partition("://")
        port = re.search(r":\d+$", authority)
        return f"{main_scheme}://{place.host}{port.group() if port else ''}{path}"

    def opening_url(self, kind: str, id: str, path: str, scheme: Scheme | None = None, state: str = "") -> str:
        """The address on the main origin that leads a browser to the thing, by way of the sign-in where that is needed."""
        return f"{self.main(scheme)}{opening_path(kind, id, path, state)}"

    def find(self, host: str, path: str) -> tuple[str, str, str] | None:
        """Kind and id of the thing that this host name (with or without port) and path belong to, and the path within it."""
        if self.is_by_path:
            for kind in LABELS:
                if path.startswith(f"/~{kind}/"):
                    id, slash, rest = path.removeprefix(f"/~{kind}/").partition("/")
                    return (kind, id, slash + rest or "/") if _ID.fullmatch(id) else None
            return None
        name = re.sub(r":\d+$", "", host).rstrip(".").lower()
        for kind, label in LABELS.items():
            id = name.removesuffix(f".{label}.{self.domain}")
            if id != name:
                return (kind, id, path) if _ID.fullmatch(id) else (kind, "", path)
        return None

    def patterns(self, scheme: Scheme | None = None) -> tuple[str, ...]:
        """The origins of all things, as sources of a content security policy."""
        return () if self.is_by_path else tuple(self.url(kind, "*", "", scheme) for kind in LABELS)

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """The patterns that the front door's certificate has to speak for."""
        names = () if self.is_by_path else tuple(f"*.{label}.{self.domain}" for label in LABELS.values())
        return (*names, *(authority_host(url) for url in (self.http, self.https)))


def opening_path(kind: str, id: str, path: str, state: str = "") -> str:
    """`/open/…` with what it needs to know."""
    question = f"?path={quote(path, safe='/')}" if path != "/" or state else ""
    return f"/open/{kind}/{id}{question}{f'&state={state}' if state else ''}"


def authority_host(url: str) -> str:
    """The host name or address in an origin, without port and brackets."""
    authority = url.partition("://")[2]
    return re.sub(r":\d+$", "", authority).removeprefix("[").removesuffix("]")
