"""Tokens for a remote Swift: Keystone v2 and v3, and Swift's own v1 (TempAuth and the like).

Sources: OpenStack Identity API v2.0 `POST /tokens` and v3 `POST /auth/tokens`; Swift's `GET /auth/v1.0`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import httpx

from modelyard.kit.clock import Clock, utc_now
from modelyard.objectstore.port import StoreRefused, StoreUnreachable

# A token is renewed so long before its end, so that none ends in the middle of a request.
_RESERVE = timedelta(seconds=120)
_UNKNOWN_LIFE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class SwiftCredentials:
    """An admin's credentials for a remote store.

    Attributes:
        auth_url: `https://host/v2.0`, `https://host/v3`, or for v1 the whole address, `https://host/auth/v1.0`.
        version: of the identity API.
        user: for v1 `{account}:{user}`.
        tenant: tenant or project: its id for v2, its id or name (with `is_tenant_name`) for v3; unused for v1.
        domain: of user and project, v3 only.
    """

    auth_url: str
    user: str
    password: str = field(repr=False)
    version: Literal["v1", "v2", "v3"] = "v2"
    tenant: str = ""
    is_tenant_name: bool = False
    domain: str = "default"


class TokenSource:
    """Fetches a token and keeps it until shortly before its end; callers that come together wait for one fetch."""

    def __init__(self, client: httpx.AsyncClient, credentials: SwiftCredentials, *, clock: Clock = utc_now) -> None:
        self._client = client
        self._credentials = credentials
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token = ""
        self._ends_at = datetime.min.replace(tzinfo=UTC)

    async def token(self) -> str:
        """A token that is good for the next minutes. Raises `StoreRefused` or `StoreUnreachable`."""
        async with self._lock:
            if self._clock() + _RESERVE >= self._ends_at:
                self._token, self._ends_at = await self._fetch()
            return self._token

    def forget(self, token: str) -> None:
        """The store did not take this token: fetch another next time."""
        if token == self._token:
            self._ends_at = datetime.min.replace(tzinfo=UTC)

    async def _fetch(self) -> tuple[str, datetime]:
        credentials = self._credentials
        try:
            response = await self._client.send(_request(self._client, credentials))
        except httpx.HTTPError as error:
            raise StoreUnreachable(
                f"the identity service at {credentials.auth_url} does not answer: {error}"
            ) from error
        if response.status_code >= 500:
            raise StoreUnreachable(f"the identity service at {credentials.auth_url} answered {response.status_code}")
        if response.status_code >= 300:
            raise StoreRefused(
                f"the identity service at {credentials.auth_url} refused the credentials of '{credentials.user}' "
                f"(status {response.status_code})"
            )
        try:
            return self._read(response)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreRefused(
                f"the identity service at {credentials.auth_url} gave an answer without a token"
            ) from error

    def _read(self, response: httpx.Response) -> tuple[str, datetime]:
        if self._credentials.version == "v1":
            life = response.headers.get("x-auth-token-expires")
            ends_at = self._clock() + (timedelta(seconds=int(life)) if life else _UNKNOWN_LIFE)
            return response.headers["x-auth-token"], ends_at
        answer: dict[str, Any] = response.json()
        if self._credentials.version == "v2":
            token = answer["access"]["token"]
            return str(token["id"]), _time(str(token["expires"]))
        return response.headers["x-subject-token"], _time(str(answer["token"]["expires_at"]))


def _request(client: httpx.AsyncClient, credentials: SwiftCredentials) -> httpx.Request:
    url = credentials.auth_url.rstrip("/")
    if credentials.version == "v1":
        return client.build_request(
            "GET", url, headers={"X-Auth-User": credentials.user, "X-Auth-Key": credentials.password}
        )
    if credentials.version == "v2":
        tenant_key = "tenantName" if credentials.is_tenant_name else "tenantId"
        body: dict[str, Any] = {
            "auth": {
                tenant_key: credentials.tenant,
                "passwordCredentials": {"username": credentials.user, "password": credentials.password},
            }
        }
        return client.build_request("POST", f"{url}/tokens", json=body)
    domain = {"id": credentials.domain}
    user = {"name": credentials.user, "domain": domain, "password": credentials.password}
    project = (
        {"name": credentials.tenant, "domain": domain} if credentials.is_tenant_name else {"id": credentials.tenant}
    )
    body = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }
    }
    return client.build_request("POST", f"{url}/auth/tokens", json=body)


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
