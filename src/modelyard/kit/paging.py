"""Pages of lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list is wanted: `page` counts from 1; `limit` rows a page, None for the whole list."""

    page: int = 1
    limit: int | None = None

    @property
    def offset(self) -> int:
        """Rows before this page."""
        return 0 if self.limit is None else (self.page - 1) * self.limit


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list, with the number of rows that the whole list has."""

    items: Sequence[T]
    total_count: int
    request: PageRequest
