"""One page of a list that may be long.

Rows are found in two steps: the ids of the page from an index, then the rows themselves, so that skipping and testing never loads what
isn't shown. Counting stops at a bound: who looks at a list wants to know whether there are 40 or 4,000, and a count that reads
all rows would make each page of a long list slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from modelyard.db.columns import ResourceColumns, Utc
from modelyard.kit.errors import Fault, Invalid
from modelyard.kit.paging import CREATED, Mark, Page, PageRequest

R = TypeVar("R", bound=ResourceColumns)

COUNT_LIMIT = 100_000
"""How far a list is counted whose count reads one index and nothing else: 10 ms or so."""
TESTED_COUNT_LIMIT = 10_000
"""How far a list is counted whose rows have to be looked at."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[R]):
    """A table as a list. `columns` are those that it can be sorted by, under their names on the wire; the creation is the id."""

    row: type[R]
    columns: Mapping[str, InstrumentedAttribute[Any]]

    async def page(
        self,
        session: AsyncSession,
        conditions: Sequence[ColumnElement[bool]],
        request: PageRequest,
        *,
        count_limit: int = TESTED_COUNT_LIMIT,
    ) -> Page[R]:
        """The rows that are wanted, in the order that is wanted. Raises `Invalid` for a cursor that can't be read."""
        if request.limit is None:
            rows = (await session.scalars(select(self.row).where(*conditions).order_by(*self._order(request)))).all()
            return Page(rows, len(rows), request)
        total_count = await session.scalar(counted(self.row, conditions, count_limit + 1)) or 0
        ids = (await session.scalars(self.ids(conditions, request))).all()
        rows = await self._rows(session, ids[: request.limit])
        cursor = self._mark(rows[-1], request).to_cursor() if len(ids) > request.limit and rows else None
        return Page(rows, min(total_count, count_limit), request, cursor, total_count <= count_limit)

    def ids(self, conditions: Sequence[ColumnElement[bool]], request: PageRequest) -> Select[str]:
        """The ids of a page, and one more if another page follows."""
        chosen = [*conditions] if request.after is None else [*conditions, self._is_after(request.after)]
        ordered = select(self.row.id).where(*chosen).order_by(*self._order(request))
        return ordered.limit((request.limit or 0) + 1).offset(request.offset)

    async def _rows(self, session: AsyncSession, ids: Sequence[str]) -> list[R]:
        if not ids:
            return []
        found = {row.id: row for row in await session.scalars(select(self.row).where(self.row.id.in_(ids)))}
        return [found[id] for id in ids if id in found]

    def _order(self, request: PageRequest) -> list[ColumnElement[Any]]:
        column = self._column(request.sort.field)
        keys: list[Any] = [self.row.id] if column is None else [column, self.row.id]
        return [key.desc() if request.sort.is_descending else key.asc() for key in keys]

    def _is_after(self, mark: Mark) -> ColumnElement[bool]:
        column = self._column(mark.sort.field)
        if column is None:
            return self.row.id < mark.id if mark.sort.is_descending else self.row.id > mark.id
        value: Any = mark.value
        if isinstance(column.type, Utc):
            try:
                value = datetime.fromisoformat(mark.value)
            except ValueError:
                value = None
            if value is None or value.tzinfo is None:
                raise Invalid([Fault("cursor", "is no cursor; take `paging.nextCursor` of the page before as it is")])
        here: Any = tuple_(column, self.row.id)
        there: Any = tuple_(literal(value, column.type), literal(mark.id))
        return here < there if mark.sort.is_descending else here > there

    def _mark(self, row: R, request: PageRequest) -> Mark:
        column = self._column(request.sort.field)
        value = "" if column is None else getattr(row, column.key)
        return Mark(request.sort, value.isoformat() if isinstance(value, datetime) else str(value), row.id)

    def _column(self, field: str) -> InstrumentedAttribute[Any] | None:
        return None if field == CREATED else self.columns[field]


def counted(row: type[ResourceColumns], conditions: Sequence[ColumnElement[bool]], limit: int) -> Select[int]:
    """How many rows there are; counts no further than `limit`."""
    return select(func.count()).select_from(select(row.id).where(*conditions).limit(limit).subquery())
