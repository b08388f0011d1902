"""What the routers of resources share: reading pages and lists from queries."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import AfterValidator, AwareDatetime, BeforeValidator

from modelyard.control.deletions import Deleted
from modelyard.kit.errors import Fault, Invalid
from modelyard.kit.paging import MAX_LIMIT, Mark, Page, PageRequest, Sort
from modelyard.wire import DeletionList, DeletionOut, Header, Paging, Wire, blockers_out, plain

T = TypeVar("T")

DEFAULT_LIMIT = 100
"""Rows after a cursor, where no limit is given."""


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


def sorted_page_request(*fields: str) -> Callable[..., PageRequest]:
    """Like `page_request`, for a list that can be sorted by these fields and takes cursors."""

    def _request(
        request: PageRequest = Depends(page_request),
        sort: str | None = Query(
            default=None,
            description=f"One of {', '.join(fields)}; with a '-' before it descending. Newest first when absent.",
        ),
        cursor: str | None = Query(
            default=None,
            max_length=2000,
            description="`paging.nextCursor` of the page before, instead of a page number.",
        ),
    ) -> PageRequest:
        chosen = Sort.parse(sort, fields)
        if cursor is None:
            return PageRequest(request.page, request.limit, chosen)
        if request.page != 1:
            raise Invalid([Fault("cursor", "takes the place of a page number; give one of them")])
        return PageRequest(1, request.limit or DEFAULT_LIMIT, chosen, Mark.of_cursor(cursor, chosen))

    return _request


def _plus_restored(value: Any) -> Any:
    # In a query a '+' means a space; who writes +09:00 there means the plus.
    return _SPACE_FOR_PLUS.sub(r"+\1", value) if isinstance(value, str) else value


_SPACE_FOR_PLUS = re.compile(r" (\d\d:?\d\d)$")
_YEARS = range(1970, 9999)


def _within_the_calendar(moment: datetime) -> datetime:
    # Nearer to the ends of the calendar an hour before, or another offset, would be no date any more.
    if moment.year not in _YEARS:
        raise ValueError(f"must be in the years {_YEARS[0]} to {_YEARS[-1]}")
    return moment


QueryMoment = Annotated[AwareDatetime, BeforeValidator(_plus_restored), AfterValidator(_within_the_calendar)]
"""A moment in a query: ISO 8601 with its offset."""


def paging_of(page: Page[T]) -> Paging:
    """The wire form of where a page stands."""
    return Paging(
        total_count=page.total_count,
        is_total_count_exact=page.is_total_exact,
        page=page.request.page,
        limit=page.request.limit,
        next_cursor=page.next_cursor,
    )


def deletions_out(found: Sequence[Deleted]) -> DeletionList:
    """The wire form of what became of several that were to be deleted."""
    failed = sum(item.code != 0 for item in found)
    header = (
        Header(result_code=1, result_message=f"{failed} of {len(found)} could not be deleted") if failed else Header()
    )
    return DeletionList(
        header=header,
        result_list=[
            DeletionOut(
                id=item.id,
                is_successful=item.code == 0,
                result_code=item.code,
                result_message=item.message,
                blocker_list=blockers_out(item.blockers),
                has_more_blockers=item.has_more_blockers,
            )
            for item in found
        ],
    )


def whole(count: int) -> Paging:
    """The wire form for a list that is always given whole."""
    return Paging(total_count=count, page=1)


def streamed(name: str, ids: Sequence[str], show: Callable[[Sequence[str]], Awaitable[Sequence[Wire]]]) -> Response:
    """A whole list as JSON, made piece by piece while it is sent: neither memory nor other requests pay for its length.

    `show` gives the items of some of the ids; those of ids that went meanwhile may be missing.
    """

    async def _pieces() -> AsyncGenerator[str]:
        yield f'{{"header":{_json(Header())},"{name}":['
        count = 0
        for begin in range(0, len(ids), _ITEMS_A_PIECE):
            items = await show(ids[begin : begin + _ITEMS_A_PIECE])
            if items:
                yield ("," if count else "") + ",".join(map(_json, items))
            count += len(items)
        yield f'],"paging":{_json(whole(count))}}}'

    return StreamingResponse(_pieces(), media_type="application/json")


def _json(item: Wire) -> str:
    return item.model_dump_json(by_alias=True, exclude_none=True)


_ITEMS_A_PIECE = 50
"""Ten milliseconds of work."""


def listed(request: Request, name: str) -> list[str]:
    """A list-valued query parameter: repeated keys (clients from 2.1.0 on), or one comma-joined value (before)."""
    values = request.query_params.getlist(name)
    if len(values) == 1 and "," in values[0]:
        values = values[0].split(",")
    if any("\0" in value for value in values):
        raise Invalid([Fault(name, "must not contain a NUL character")])
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
    if item["type"] == "json_invalid":
        return Fault("body", f"is not JSON: {item.get('ctx', {}).get('error', item['msg'])}")
    return Fault(field or "body", plain(item))
