"""HTTP door of log search."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Query

from modelyard.resources.logs.schemas import LogSearchOut
from modelyard.resources.logs.service import Logs
from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.web import QueryMoment


def create_router(logs: Logs, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "logs")

    @router.get("/logs")
    async def search_logs(
        query: str = Query(default="", max_length=10_000, description="Lucene syntax."),
        begin_at: QueryMoment | None = Query(default=None, alias="from"),
        end_at: QueryMoment | None = Query(default=None, alias="to"),
        limit: int = Query(default=100, ge=1, le=1000),
        cursor: str | None = Query(default=None, max_length=1000),
        order: Literal["asc", "desc"] = Query(default="desc"),
        caller: Caller = Depends(access),
    ) -> LogSearchOut:
        """Search the project's log lines, newest first unless `order=asc`."""
        page = await logs.search(
            caller,
            query,
            begin_at=begin_at,
            end_at=end_at,
            limit=limit,
            cursor=cursor,
            is_ascending=order == "asc",
        )
        return LogSearchOut(
            log_list=[dict(line) for line in page.lines], total_count=page.total_count, cursor=page.cursor
        )

    return router
