"""Search in the log service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Literal

from modelyard.resources.logs.schemas import LogSearchOut
from modelyard.sdk.api import Api

SEARCH_PAGE_SIZE = 500

Order = Literal["asc", "desc"]


class AsyncLogs:
    """`client.logs`. The query language is that of the guide: `category:"easymaker.training" AND trainingId:"…" AND body:error*`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def search(
        self,
        query: str = "",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
        order: Order = "desc",
    ) -> LogSearchOut:
        """One page of lines that match, newest first unless `order` is "asc". `cursor` of the answer continues. Raises `BadRequest`."""
        return await self._api.ask(
            LogSearchOut,
            "GET",
            "/logs",
            params={
                "query": query or None,
                "from": None if since is None else since.isoformat(),
                "to": None if until is None else until.isoformat(),
                "limit": limit,
                "cursor": cursor,
                "order": order,
            },
        )

    async def iterate(
        self,
        query: str = "",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        order: Order = "desc",
    ) -> AsyncIterator[Mapping[str, Any]]:
        """All lines that match, fetched page by page."""
        cursor: str | None = None
        while True:
            page = await self.search(
                query, since=since, until=until, limit=SEARCH_PAGE_SIZE, cursor=cursor, order=order
            )
            for line in page.log_list:
                yield line
            cursor = page.cursor
            if cursor is None or not page.log_list:
                return
