"""What the routers of resources share: reading pages and lists from queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastapi import Query, Request
from fastapi.routing import APIRoute

from modelyard.kit.errors import Fault
from modelyard.kit.paging import MAX_LIMIT, Page, PageRequest
from modelyard.wire import Paging

T = TypeVar("T")


class WireRoute(APIRoute):
    """A route whose answers leave out what is null: some clients take a null for a value (sdk-contract §8.5)."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["response_model_exclude_none"] = True
        super().__init__(path, endpoint, **options)


def page_request(
    page: int = Query(default=1, ge=1, le=10_000_000, description="Page number, from 1."),
    limit: int | None = Query(default=None, ge=1, le=MAX_LIMIT, description="Rows a page; all rows when absent."),
) -> PageRequest:
    """Which part of a list is wanted. Without `limit` the whole list: the official client never asks for a second page."""
    return PageRequest(page, limit)


def paging_of(page: Page[T]) -> Paging:
    """The wire form of where a page stands."""
    return Paging(total_count=page.total_count, page=page.request.page, limit=page.request.limit)


def whole(count: int) -> Paging:
    """The wire form for a list that is always given whole."""
    return Paging(total_count=count, page=1)


def listed(request: Request, name: str) -> list[str]:
    """A list-valued query parameter: repeated keys (clients from 2.1.0 on), or one comma-joined value (before)."""
    values = request.query_params.getlist(name)
    if len(values) == 1 and "," in values[0]:
        values = values[0].split(",")
    return [value for value in values if value]


def form_faults(complaints: Sequence[Any]) -> list[Fault]:
    """Pydantic's complaints about a request, each by the field's path as it stands on the wire."""
    return [_fault(item) for item in complaints]


def _fault(item: dict[str, Any]) -> Fault:
    """One of pydantic's complaints, with the field's path as it stands on the wire."""
    parts = [part for part in item["loc"] if part not in ("body", "query", "path", "header")]
    field = ""
    for part in parts:
        field += f"[{part}]" if isinstance(part, int) else (f".{part}" if field else str(part))
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "missing":
        message = "must be given"
    elif item["type"] == "json_invalid":
        return Fault("body", f"is not JSON: {item.get('ctx', {}).get('error', message)}")
    return Fault(field or "body", message)
