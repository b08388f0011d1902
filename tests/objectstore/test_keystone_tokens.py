"""Tokens from Keystone: requests in the documented forms, answers read, tokens kept until shortly before their end.

What Keystone itself answers is taken from its API reference; a running Swift with its own identity service is tested in
tests/conformance/swift/test_remote_stores.py.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from modelyard.objectstore.backends.swift.keystone import SwiftCredentials, TokenSource
from modelyard.objectstore.port import StoreRefused, StoreUnreachable

ENDS = "2026-01-01T13:00:00Z"


class Identity:
    """Checks what a client sends and counts."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.status = 200
        self.answer: Any = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append((str(request.url), json.loads(request.content)))
        if self.status != 200:
            return httpx.Response(self.status)
        if request.url.path == "/v2.0/tokens":
            answer = {"access": {"token": {"id": f"token-{len(self.bodies)}", "expires": ENDS}}}
            return httpx.Response(200, json=self.answer or answer)
        headers = {"X-Subject-Token": f"token-{len(self.bodies)}"}
        return httpx.Response(201, headers=headers, json={"token": {"expires_at": "2026-01-01T13:00:00.000000Z"}})


@pytest.fixture
def identity() -> Identity:
    return Identity()


def source(identity: Identity, credentials: SwiftCredentials, now: Any) -> TokenSource:
    return TokenSource(httpx.AsyncClient(transport=httpx.MockTransport(identity)), credentials, clock=lambda: now[0])


async def test_v2(identity: Identity) -> None:
    now = [datetime(2026, 1, 1, 12, tzinfo=UTC)]
    tokens = source(identity, SwiftCredentials("https://id.example.org/v2.0", "user", "pw", "v2", "t1"), now)
    assert await tokens.token() == "token-1"
    assert await tokens.token() == "token-1"
    assert identity.bodies == [
        (
            "https://id.example.org/v2.0/tokens",
            {"auth": {"tenantId": "t1", "passwordCredentials": {"username": "user", "password": "pw"}}},
        )
    ]
    now[0] += timedelta(minutes=58, seconds=30)
    assert await tokens.token() == "token-2"
    tokens.forget("token-1")
    assert len(identity.bodies) == 2


async def test_forgotten_token_is_fetched_again(identity: Identity) -> None:
    now = [datetime(2026, 1, 1, 12, tzinfo=UTC)]
    tokens = source(identity, SwiftCredentials("https://id.example.org/v2.0", "user", "pw", "v2", "t1"), now)
    tokens.forget(await tokens.token())
    assert await tokens.token() == "token-2"


async def test_v3(identity: Identity) -> None:
    now = [datetime(2026, 1, 1, 12, tzinfo=UTC)]
    credentials = SwiftCredentials("https://id.example.org/v3/", "user", "pw", "v3", "proj", is_tenant_name=True)
    assert await source(identity, credentials, now).token() == "token-1"
    url, body = identity.bodies[0]
    assert url == "https://id.example.org/v3/auth/tokens"
    assert body["auth"]["identity"]["methods"] == ["password"]
    assert body["auth"]["identity"]["password"]["user"] == {
        "name": "user",
        "domain": {"id": "default"},
        "password": "pw",
    }
    assert body["auth"]["scope"] == {"project": {"name": "proj", "domain": {"id": "default"}}}


async def test_failures_are_told(identity: Identity) -> None:
    now = [datetime(2026, 1, 1, 12, tzinfo=UTC)]
    credentials = SwiftCredentials("https://id.example.org/v2.0", "user", "pw", "v2", "t1")
    for status, kind in ((401, StoreRefused), (503, StoreUnreachable)):
        identity.status = status
        with pytest.raises(kind):
            await source(identity, credentials, now).token()
    identity.status, identity.answer = 200, {"strange": True}
    with pytest.raises(StoreRefused, match="without a token"):
        await source(identity, credentials, now).token()


def test_password_is_not_shown() -> None:
    assert "pw" not in repr(SwiftCredentials("https://id.example.org/v2.0", "user", "pw"))
