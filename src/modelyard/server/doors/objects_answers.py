"""What the object store's door answers: a status, headers and a body, and the standard texts of Swift for statuses that have no own body.

Source of statuses and texts: OpenStack Swift, compared with a running one in tests/conformance/swift.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

_REASONS = {
    202: ("Accepted", "The request is accepted for processing."),
    400: (
        "Bad Request",
        "The server could not comply with the request since it is either malformed or otherwise incorrect.",
    ),
    401: (
        "Unauthorized",
        "This server could not verify that you are authorized to access the document you requested.",
    ),
    403: ("Forbidden", "Access was denied to this resource."),
    404: ("Not Found", "The resource could not be found."),
    405: ("Method Not Allowed", "The method is not allowed for this resource."),
    406: ("Not Acceptable", "The resource is not available in a format acceptable to your browser."),
    409: ("Conflict", "There was a conflict when trying to complete your request."),
    411: ("Length Required", "Content-Length header required."),
    412: ("Precondition Failed", "A precondition for this request was not met."),
    413: ("Request Entity Too Large", "The body of your request was too large for this server."),
    416: ("Requested Range Not Satisfiable", "The Range requested is not available."),
    422: ("Unprocessable Entity", "Unable to process the contained instructions"),
    499: ("Client Disconnect", "The client was disconnected during request."),
    502: ("Bad Gateway", "Bad gateway."),
    503: ("Service Unavailable", "The server is currently unavailable. Please try again at a later time."),
    507: ("Insufficient Storage", "There was not enough space to save the resource."),
}
HTML = "text/html; charset=UTF-8"
PLAIN = "text/plain"

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Answer:
    """An answer. `body` is bytes, or pieces whose length is in the headers."""

    status: int
    headers: Headers = field(default_factory=list[tuple[str, str]])
    body: bytes | AsyncIterator[bytes] = b""

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it as an ASGI application would; bodies stay away from HEAD answers."""
        transaction = f"tx{secrets.token_hex(16)}"
        headers = [*self.headers, ("X-Trans-Id", transaction), ("X-Openstack-Request-Id", transaction)]
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        if isinstance(self.body, bytes) and not any(name == b"content-length" for name, _ in raw):
            raw.append((b"content-length", str(len(self.body)).encode()))
        if scope["method"] == "HEAD":
            response = Response(b"", self.status)
        elif isinstance(self.body, bytes):
            response = Response(self.body, self.status)
        else:
            response = StreamingResponse(self.body, self.status)
        response.raw_headers = raw
        try:
            await response(scope, receive, send)
        except ClientDisconnect:
            return


class Refusal(Exception):
    """Raised anywhere below the door to end the request with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def standard(status: int, headers: Headers | None = None) -> Answer:
    """The answer that Swift gives with a status alone."""
    body = b""
    if status in _REASONS:
        title, sentence = _REASONS[status]
        body = f"<html><h1>{title}</h1><p>{sentence}</p></html>".encode()
    return Answer(status, [("Content-Type", HTML), *(headers or [])], body)


def refuse(status: int, text: str | None = None, *, content_type: str = HTML) -> Refusal:
    """A refusal with Swift's standard body, or with a text of its own."""
    if text is None:
        return Refusal(standard(status))
    return Refusal(Answer(status, [("Content-Type", content_type)], text.encode()))
