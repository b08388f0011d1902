"""A remote Swift: the port's verbs, and requests passed on as they came.

Every request carries the admin's token, so callers must have been checked before. Nothing follows a redirect: the allow-list names hosts,
and a redirect could leave them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import quote, urlencode

import httpx

from modelyard.objectstore.backends.swift.keystone import SwiftCredentials, TokenSource
from modelyard.objectstore.paths import ObsPath
from modelyard.objectstore.port import (
    NoSuchPath,
    ObjectPage,
    ObjectStat,
    RelayedAnswer,
    StoreFull,
    StoreRefused,
    StoreUnreachable,
)

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


class SwiftStore:
    """The store at one host (`host[:port]`, as in `obs://` paths)."""

    def __init__(
        self,
        host: str,
        credentials: SwiftCredentials,
        *,
        scheme: Literal["https", "http"] = "https",
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._base = f"{scheme}://{host}"
        self._client = client or httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False)
        self._tokens = TokenSource(self._client, credentials)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def head(self, path: ObsPath) -> ObjectStat:
        """What is known of an object. Raises `NoSuchPath`."""
        answer = await self._ask("HEAD", path.url_path)
        await _drain(answer)
        _check(answer.status, path)
        headers = {name.lower(): value for name, value in answer.headers}
        return ObjectStat(
            name=path.path,
            size=int(headers.get("content-length", "0")),
            etag=headers.get("etag", "").strip('"'),
            content_type=headers.get("content-type", ""),
            modified_at=_date(headers.get("last-modified")),
            headers={name: value for name, value in headers.items() if name.startswith("x-object-")},
        )

    async def get(self, path: ObsPath, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes. Raises `NoSuchPath`."""
        headers: dict[str, str] = {}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        answer = await self._ask("GET", path.url_path, headers=headers)
        if answer.status not in (200, 206):
            await _drain(answer)
            _check(answer.status, path)
        async for piece in answer.body:
            yield piece

    async def put(
        self, path: ObsPath, content: AsyncIterator[bytes], *, size: int | None = None, content_type: str = ""
    ) -> ObjectStat:
        """Write an object. Raises `NoSuchPath` without the container."""
        headers = {"Content-Type": content_type} if content_type else {}
        if size is not None:
            headers["Content-Length"] = str(size)
        answer = await self._ask("PUT", path.url_path, headers=headers, body=content)
        await _drain(answer)
        _check(answer.status, path)
        return await self.head(path)

    async def list(
        self, path: ObsPath, *, prefix: str | None = None, delimiter: str = "", marker: str = "", limit: int = 1000
    ) -> ObjectPage:
        """Objects of the path's container. Raises `NoSuchPath`."""
        wanted = path.directory_prefix if prefix is None else prefix
        query = {"format": "json", "prefix": wanted, "delimiter": delimiter, "marker": marker, "limit": str(limit)}
        container = f"/{path.version}/{path.account}/{quote(path.container, safe='')}"
        answer = await self._ask(
            "GET", container, query=urlencode({key: value for key, value in query.items() if value})
        )
        body = b"".join([piece async for piece in answer.body])
        _check(answer.status, path)
        entries: list[dict[str, Any]] = httpx.Response(200, content=body).json() if body else []
        objects = [
            ObjectStat(
                name=entry["name"],
                size=entry["bytes"],
                etag=entry["hash"],
                content_type=entry["content_type"],
                modified_at=datetime.fromisoformat(entry["last_modified"]).replace(tzinfo=UTC),
            )
            for entry in entries
            if "name" in entry
        ]
        prefixes = [entry["subdir"] for entry in entries if "subdir" in entry]
        last = entries[-1].get("name") or entries[-1].get("subdir") if len(entries) >= limit else None
        return ObjectPage(objects, prefixes, last)

    async def delete(self, path: ObsPath) -> None:
        """Take the object away; what is not there is fine."""
        answer = await self._ask("DELETE", path.url_path)
        await _drain(answer)
        if answer.status != 404:
            _check(answer.status, path)

    async def relay(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes] | None,
    ) -> RelayedAnswer:
        """Send a request with the store's own credentials and give its answer."""
        return await self._ask(method, path, query=query, headers=headers, body=body)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: AsyncIterator[bytes] | None = None,
    ) -> RelayedAnswer:
        token = await self._tokens.token()
        answer = await self._send(method, path, query, headers or {}, body, token)
        if answer.status != 401:
            return answer
        self._tokens.forget(token)
        if body is not None:  # it has been read and can't be sent again; the next request has a new token
            return answer
        await _drain(answer)
        return await self._send(method, path, query, headers or {}, None, await self._tokens.token())

    async def _send(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes] | None,
        token: str,
    ) -> RelayedAnswer:
        url = httpx.URL(f"{self._base}{path}{f'?{query}' if query else ''}")
        sent = {"Accept-Encoding": "identity", **headers, "X-Auth-Token": token}
        request = self._client.build_request(method, url, headers=sent, content=body)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise StoreUnreachable(f"the object store at {self._base} does not answer: {error}") from error
        return RelayedAnswer(response.status_code, response.headers.multi_items(), _body(response))


async def _body(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx.HTTPError as error:
        raise StoreUnreachable(f"the object store broke off its answer: {error}") from error
    finally:
        await response.aclose()


async def _drain(answer: RelayedAnswer) -> None:
    async for _ in answer.body:
        pass


def _check(status: int, path: ObsPath) -> None:
    if status < 300:
        return
    if status == 404:
        raise NoSuchPath(f"{path} does not exist")
    if status == 507:
        raise StoreFull(f"the object store of {path} is full")
    if status >= 500 or status in (408, 429):
        raise StoreUnreachable(f"the object store answered {status} for {path}")
    if status in (401, 403):
        raise StoreRefused(f"the object store refuses {path} for the platform's credentials (status {status})")
    raise StoreRefused(f"the object store answered {status} for {path}")


def _date(value: str | None) -> datetime:
    if not value:
        return datetime.fromtimestamp(0, UTC)
    found = parsedate_to_datetime(value)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
