"""Refuses request bodies that are too large, before they fill the memory. Objects, which are streamed, are exempt."""

from __future__ import annotations

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelyard.server.problems import problem


class _TooLarge(Exception):
    pass


class BodyLimit:
    """ASGI middleware: 413 in the envelope for a body over `max_body_bytes`, declared or streamed."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, exempt_prefix: str) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._exempt_prefix = exempt_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its body."""
        if scope["type"] != "http" or scope["path"].startswith(self._exempt_prefix):
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_body_bytes:
            await self._refuse(scope, receive, send)
            return
        seen_bytes = 0
        has_started = False

        async def _receive() -> Message:
            nonlocal seen_bytes
            message = await receive()
            seen_bytes += len(message.get("body", b""))
            if seen_bytes > self._max_body_bytes:
                raise _TooLarge
            return message

        async def _send(message: Message) -> None:
            nonlocal has_started
            if seen_bytes > self._max_body_bytes and not has_started:
                return  # the framework answers any error while it reads a body with a 400 of its own: the refusal below is the answer
            has_started = True
            await send(message)

        with suppress(_TooLarge):
            await self._app(scope, _receive, _send)
        if seen_bytes > self._max_body_bytes and not has_started:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = f"the body is larger than {self._max_body_bytes} bytes"
        await problem(413, 413001, message)(scope, receive, send)
