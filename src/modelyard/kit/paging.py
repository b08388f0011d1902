"""Pages of lists.

A list is read by page number, or from a cursor on: a cursor names the last row that was seen, so that a page costs the same wherever it is
and nothing is shown twice or left out while rows come and go.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from modelyard.kit.errors import Fault, Invalid

T = TypeVar("T")
U = TypeVar("U")

MAX_LIMIT = 1000
CREATED = "createdDatetime"


@dataclass(frozen=True, slots=True)
class Sort:
    """What a list is sorted by: the field's name on the wire. Rows that are equal in it are sorted by id, that is by creation."""

    field: str = CREATED
    is_descending: bool = True

    @staticmethod
    def parse(text: str | None, fields: Sequence[str]) -> Sort:
        """`name` for ascending, `-name` for descending; newest first when absent. Raises `Invalid`."""
        if text is None:
            return Sort()
        field = text.removeprefix("-")
        if field not in fields:
            known = ", ".join(fields)
            raise Invalid([Fault("sort", f"must be one of {known}; with a '-' before it from the last to the first")])
        return Sort(field, text.startswith("-"))

    def __str__(self) -> str:
        return f"-{self.field}" if self.is_descending else self.field


@dataclass(frozen=True, slots=True)
class Mark:
    """The last row that was seen: its value of the field that the list is sorted by, as text, and its id."""

    sort: Sort
    value: str
    id: str

    def to_cursor(self) -> str:
        """The mark as clients hand it back; they don't read it."""
        content = json.dumps([str(self.sort), self.value, self.id], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")

    @staticmethod
    def of_cursor(cursor: str, sort: Sort) -> Mark:
        """The mark of a cursor. Raises `Invalid` for what is no cursor, or one of a list in another order."""
        try:
            raw: Any = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        except (ValueError, binascii.Error):
            raw = None
        items = cast(list[Any], raw) if isinstance(raw, list) else []
        if len(items) != 3 or not all(isinstance(item, str) and "\0" not in item for item in items):
            raise Invalid([Fault("cursor", "is no cursor; take `paging.nextCursor` of the page before as it is")])
        if items[0] != str(sort):
            raise Invalid([Fault("cursor", f"belongs to a list sorted by {items[0]}, not by {sort}; begin without it")])
        return Mark(sort, items[1], items[2])


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list is wanted: `page` counts from 1; `limit` rows a page, None for the whole list; `after` instead of a page."""

    page: int = 1
    limit: int | None = None
    sort: Sort = Sort()
    after: Mark | None = None

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return 0 if self.limit is None or self.after is not None else (self.page - 1) * self.limit


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list.

    Attributes:
        total_count: rows of the whole list; counting ends somewhere, and where it did `is_total_exact` is false.
        next_cursor: for the page after this one, where there is one and the list takes cursors.
    """

    items: Sequence[T]
    total_count: int
    request: PageRequest
    next_cursor: str | None = None
    is_total_exact: bool = True

    def showing(self, items: Sequence[U]) -> Page[U]:
        """The same part of the list in another form."""
        return Page(items, self.total_count, self.request, self.next_cursor, self.is_total_exact)
