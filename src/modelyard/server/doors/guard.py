"""The guard: says for each request of a guarded route whether it may pass. The gateway is its only caller, on a socket of its own.

It answers 200 with the headers that the target is to see, or what the client is to get instead: on the way in a redirection to the main origin and
back (`/open`, then `ENTER` with a one-time code, then a cookie), else an error. Nobody but the gateway can reach it, so the header that names the
route is the gateway's word.

A page of one origin must not use another origin's cookie: sibling origins are "the same site" to browsers, whose SameSite rule does not part
them. So requests that another origin's page has caused are refused by `Origin` and `Sec-Fetch-Site`, WebSockets above all; only a
visit at the top of a window may come from elsewhere.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote

from modelyard.resources.sessions.access import Visits, path_fault
from modelyard.resources.sessions.model import Visitor
from modelyard.resources.sessions.origins import Origins, Scheme
from modelyard.resources.sessions.service import digest
from modelyard.server.cookies import Cookie, cookie_value, set_cookie, without_ours
from modelyard.server.doors.pages import Page, language, page, page_headers
from modelyard.server.problems import problem

log = logging.getLogger(__name__)

ENTER = "/.modelyard/enter"
"""Where on a workload's origin a code is exchanged for a cookie."""

_ACCESS_HEADER = "x-modelyard-access"
_Message = MutableMapping[str, Any]
_Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as the gateway tells it. `path` is within the thing, with its query; `prefix` is what comes before on the origin."""

    method: str
    scheme: Scheme
    host: str
    prefix: str
    path: str
    headers: dict[str, str]
    project_id: str
    kind: str
    id: str

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"

    @property
    def is_websocket(self) -> bool:
        return "sec-websocket-version" in self.headers or "sec-websocket-key" in self.headers

    @property
    def is_page(self) -> bool:
        """Whether somebody has a browser go there, rather than a page or a program that loads something."""
        if self.method != "GET" or self.is_websocket:
            return False
        mode = self.headers.get("sec-fetch-mode")
        if mode is not None:
            return mode == "navigate" and self.headers.get("sec-fetch-dest", "document") == "document"
        return "text/html" in self.headers.get("accept", "")

    @property
    def is_foreign(self) -> bool:
        """Whether a page of another origin has caused it, other than by leading the whole window here."""
        origin = self.headers.get("origin")
        if origin is not None and origin.lower() != f"{self.scheme}://{self.host}":
            return True
        return self.headers.get("sec-fetch-site") in ("cross-site", "same-site") and not self.is_page

    def cookie(self, cookie: Cookie) -> str | None:
        return cookie_value(self.headers.get("cookie", ""), cookie, is_secure=self.is_secure, path=self.prefix + "/")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: _Headers
    body: bytes = b""


class Guard:
    """The ASGI application."""

    def __init__(self, visits: Visits, origins: Origins) -> None:
        self._visits = visits
        self._origins = origins

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Answer one question of the gateway's."""
        asked = self._read(scope)
        answer = _refusal(403, 403012, "this request names no route") if asked is None else await self._answer(asked)
        headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.headers]
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, asked: _Asked) -> _Answer:
        if asked.path.partition("?")[0] == ENTER:
            return await self._enter(asked)
        visitor = await self._visitor(asked)
        if visitor is None:
            return self._send_away(asked)
        if asked.is_foreign:
            return _refusal(403, 403013, "a page of another origin may not do this; open the address itself")
        return _pass(asked, visitor)

    async def _visitor(self, asked: _Asked) -> Visitor | None:
        token = asked.cookie(Cookie.VISIT)
        return None if token is None else await self._visits.visitor(token, asked.project_id, asked.kind, asked.id)

    def _send_away(self, asked: _Asked) -> _Answer:
        """To the sign-in and back, where somebody looks; else a word."""
        if not asked.is_page or asked.is_foreign:
            main = self._origins.main(asked.scheme)
            return _refusal(401, 401011, f"this is open to signed-in members of its project: sign in at {main}/sign-in")
        state = secrets.token_urlsafe(32)
        path = asked.path if path_fault(asked.path) is None else "/"
        where = self._origins.opening_url(asked.kind, asked.id, path, asked.scheme, digest(state))
        cookie = set_cookie(Cookie.STATE, state, is_secure=asked.is_secure, path=asked.prefix + "/")
        return _redirection(where, [("set-cookie", cookie)])

    async def _enter(self, asked: _Asked) -> _Answer:
        """Take the code; the address with it in is left at once for one without."""
        if asked.method != "GET":
            return _refusal(405, 405000, "this address takes GET alone", [("allow", "GET")])
        code = parse_qs(asked.path.partition("?")[2]).get("code", [""])[0]
        state = asked.cookie(Cookie.STATE)
        entry = await self._visits.enter(code, asked.kind, asked.id, None if state is None else digest(state))
        if entry is not None:
            cookies = [
                ("set-cookie", self._visit_cookie(asked, entry.token, entry.expires_at)),
                ("set-cookie", set_cookie(Cookie.STATE, "", is_secure=asked.is_secure, path=asked.prefix + "/")),
            ]
            return _redirection(asked.prefix + entry.path, cookies)
        if await self._visitor(asked) is not None:  # the page was loaded again, or somebody went back
            return _redirection(asked.prefix + "/", [])
        again = self._origins.opening_url(asked.kind, asked.id, "/", asked.scheme)
        said = language(asked.headers.get("accept-language", ""))
        return _Answer(403, list(page_headers().items()), page(Page.CODE_SPENT, said, link=again))

    def _visit_cookie(self, asked: _Asked, token: str, until: Any) -> str:
        return set_cookie(Cookie.VISIT, token, is_secure=asked.is_secure, until=until, path=asked.prefix + "/")

    def _read(self, scope: _Message) -> _Asked | None:
        headers = _joined(scope["headers"])
        access = headers.get(_ACCESS_HEADER, "").split("/")
        if len(access) != 3 or not all(access):
            return None
        project_id, kind, id = access
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        query: bytes = scope["query_string"]
        path = (raw + (b"?" + query if query else b"")).decode("latin-1")
        prefix = self._origins.place(kind, id).prefix
        return _Asked(
            method=scope["method"],
            scheme="https" if headers.get("x-forwarded-proto") == "https" else "http",
            host=headers.get("host", "").lower(),
            prefix=prefix,
            path=path.removeprefix(prefix) or "/",
            headers=headers,
            project_id=project_id,
            kind=kind,
            id=id,
        )


def _pass(asked: _Asked, visitor: Visitor) -> _Answer:
    rest = without_ours(asked.headers.get("cookie", ""))
    removed = _ACCESS_HEADER if rest else f"{_ACCESS_HEADER}, cookie"
    headers: _Headers = [
        ("x-modelyard-user", quote(visitor.name)),
        ("x-modelyard-user-id", visitor.user_id or "-"),
        ("x-modelyard-project", asked.project_id),
        ("x-envoy-auth-headers-to-remove", removed),
    ]
    if rest:
        headers.append(("cookie", rest))
    return _Answer(200, headers)


def _redirection(where: str, headers: _Headers) -> _Answer:
    usual = [("location", where), ("cache-control", "no-store"), ("referrer-policy", "no-referrer")]
    return _Answer(302, [*usual, *headers])


def _refusal(status: int, code: int, message: str, headers: _Headers | None = None) -> _Answer:
    body = bytes(problem(status, code, message).body)
    usual = [("content-type", "application/json"), ("cache-control", "no-store")]
    return _Answer(status, [*usual, *(headers or [])], body)


def _joined(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name; what comes more than once is joined as the gateway would (a cookie by `;`)."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        glue = "; " if key == "cookie" else ","
        headers[key] = f"{headers[key]}{glue}{text}" if key in headers else text
    return headers
