"""Keeps the platform's own pages off the origins of notebooks and TensorBoards.

While one runs, the gateway has a route for its host. When it does not, its requests arrive here like all that no route takes; nothing of the
platform may be served under that host, where users' code has been and will be at home. A browser is led to the main origin, which
starts what can be started.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from modelyard.resources.sessions.access import path_fault
from modelyard.resources.sessions.origins import Origins, Scheme
from modelyard.server.problems import problem


class WorkloadHosts:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is for the platform's own names."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query: bytes = scope["query_string"]
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        path = (raw + (b"?" + query if query else b"")).decode("latin-1")
        found = self._origins.find(headers.get("host", ""), path)
        if found is None:
            await self._app(scope, receive, send)
            return
        await self._answer(scope["method"], headers, *found)(scope, receive, send)

    def _answer(self, method: str, headers: Mapping[str, str], kind: str, id: str, path: str) -> Response:
        scheme: Scheme = "https" if headers.get("x-forwarded-proto") == "https" else "http"
        is_page = headers.get("sec-fetch-mode", "navigate") == "navigate" and "text/html" in headers.get("accept", "")
        if not id or method != "GET" or not is_page:
            return problem(404, 404900, "nothing runs at this address at the moment")
        where = self._origins.opening_url(kind, id, path if path_fault(path) is None else "/", scheme)
        return RedirectResponse(where, 302, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
