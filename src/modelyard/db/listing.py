"""One page of a list that may be long.

Rows are found in two steps: the ids of the page from an index, then the rows themselves, so that skipping and testing never loads what
isn't shown. Counting stops at a bound: who looks at a list wants to know whether there are 40 or 4,000, and a count that reads
all rows would make each page of a long list slow.

Conditions that no single index answers are *tests*. No planner can know whether rows that pass them are common or rare, alone or together, so
none is asked to: the list is first walked in its order for a bounded number of rows, which fills the page where they are common; where
they are rare, the whole list is tested in one pass along an index that holds all that is tested, and what passed is then counted and put in order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, TypeVarTuple, cast

from sqlalchemy import ColumnElement, Select, func, intersect, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from modelyard.db.columns import ResourceColumns, Utc
from modelyard.kit.errors import Fault, Invalid
from modelyard.kit.paging import CREATED, Mark, Page, PageRequest

R = TypeVar("R", bound=ResourceColumns)
Ts = TypeVarTuple("Ts")

COUNT_LIMIT = 10_000
"""How far a list is counted."""
_WALKED = 2_000
"""Rows that are walked before the whole list is tested: some milliseconds."""
_WHOLE = 10_000_000
"""Rows of a list that is told whole."""
_COUNTED = 20_000
"""Rows, the newest, that are counted among where each costs a look into another table."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows of a list.

    Attributes:
        common: what all rows of the list fulfil, e.g. that they are the project's; every index of the list begins with it.
        tests: what columns of the covering index tell.
        probes: what only a look into another table tells, each with the ids of all rows that it lets pass.
        is_indexed: whether an index begins with all of it, in the order of creation.
        constant: columns in which all that is wanted is alike.
    """

    common: Sequence[ColumnElement[bool]]
    tests: Sequence[ColumnElement[bool]] = ()
    probes: Sequence[tuple[ColumnElement[bool], Select[str]]] = ()
    is_indexed: bool = False
    constant: Collection[str] = ()

    @property
    def all(self) -> list[ColumnElement[bool]]:
        """Everything that the rows fulfil."""
        return [*self.common, *self.tests, *(probe for probe, _ in self.probes)]


@dataclass(frozen=True, slots=True)
class Listing(Generic[R]):
    """A table as a list.

    Attributes:
        columns: those that it can be sorted by, under their names on the wire; the creation is the id.
        covering: the name of the index that holds all columns of tests and orders.
    """

    row: type[R]
    columns: Mapping[str, InstrumentedAttribute[Any]]
    covering: str | None = None

    async def page(self, session: AsyncSession, wanted: Wanted, request: PageRequest) -> Page[R]:
        """The rows that are wanted, in the order that is wanted. Raises `Invalid` for a cursor that can't be read."""
        if request.limit is None:
            rows = (
                await session.scalars(
                    select(self.row).where(*wanted.all).order_by(*_ordered(self._keys(request, wanted), request))
                )
            ).all()
            return Page(rows, len(rows), request)
        ids, count = await self._ids(session, wanted, request, request.limit)
        total_count, is_exact = await self._count(session, wanted) if count is None else _bounded(count)
        rows = await self.rows(session, ids[: request.limit])
        cursor = self._mark(rows[-1], request).to_cursor() if len(ids) > request.limit and rows else None
        return Page(rows, total_count, request, cursor, is_exact)

    async def all_ids(self, session: AsyncSession, wanted: Wanted, request: PageRequest) -> Sequence[str]:
        """The ids of all rows that are wanted, in the order that is wanted: for who reads the rows piece by piece."""
        order = _ordered(self._keys(request, wanted), request)
        ids = select(self.row.id).where(*wanted.all).order_by(*order).limit(_WHOLE).subquery()
        # One text: a hundred thousand rows would hold the event loop for a third of a second. The order of a subquery with a limit stays.
        text = await session.scalar(select(func.aggregate_strings(ids.c.id, ",")))
        return text.split(",") if text else []

    def covered(self, statement: Select[*Ts]) -> Select[*Ts]:
        """The same, answered along the covering index. PostgreSQL knows by its statistics that this is best; SQLite has none."""
        hint = f"INDEXED BY {self.covering}"
        return statement if self.covering is None else statement.with_hint(self.row, hint, "sqlite")

    async def _ids(
        self, session: AsyncSession, wanted: Wanted, request: PageRequest, limit: int
    ) -> tuple[Sequence[str], int | None]:
        """The ids of a page, and one more if another page follows; and how many rows the list has, where that came with it."""
        keys = self._keys(request, wanted)
        order = _ordered(keys, request)
        is_after = [] if request.after is None else [self._is_after(request.after)]
        tests = [*wanted.tests, *(probe for probe, _ in wanted.probes)]
        after_it = select(self.row.id).where(*wanted.common, *is_after)
        if not tests or (wanted.is_indexed and len(keys) == 1):
            page = after_it.where(*tests).order_by(*order).limit(limit + 1).offset(request.offset)
            return (await session.scalars(page)).all(), None
        walked = after_it.order_by(*order).limit(_WALKED).cte("walked")
        is_walked = self.row.id.in_(select(walked.prefix_with("MATERIALIZED").c.id))
        page = select(self.row.id).where(is_walked, *tests).order_by(*order).limit(limit + 1).offset(request.offset)
        ids = (await session.scalars(page)).all()
        if len(ids) > limit:
            return ids, None
        found = self._found(keys, wanted).cte("found").prefix_with("MATERIALIZED")
        total = select(func.count()).select_from(found).scalar_subquery()
        passed = {key.key: found.c[key.key] for key in keys}
        page = select(found.c.id, total).order_by(*_ordered([*passed.values()], request))
        if request.after is not None:
            page = page.where(self._is_after(request.after, passed))
        rows = (await session.execute(page.limit(limit + 1).offset(request.offset))).all()
        is_first = request.after is None and not request.offset
        return [row[0] for row in rows], rows[0][1] if rows else 0 if is_first else None

    def _found(self, keys: Sequence[InstrumentedAttribute[Any]], wanted: Wanted) -> Select[Any]:
        """All rows that are wanted, in no order. What other tables tell is put together there: a look for each row would cost more."""
        found = cast("Select[Any]", select(*keys).where(*wanted.common, *wanted.tests))
        passing = [ids for _, ids in wanted.probes]
        if passing:
            found = found.where(self.row.id.in_(passing[0] if len(passing) == 1 else intersect(*passing)))
        return self.covered(found)

    async def rows(self, session: AsyncSession, ids: Sequence[str]) -> list[R]:
        """The rows of some ids, in their order, as far as they are there."""
        if not ids:
            return []
        found = {row.id: row for row in await session.scalars(select(self.row).where(self.row.id.in_(ids)))}
        return [found[id] for id in ids if id in found]

    def _keys(self, request: PageRequest, wanted: Wanted) -> list[InstrumentedAttribute[Any]]:
        """What rows are sorted by: not by what all of them have alike."""
        column = self._column(request.sort.field)
        return [self.row.id] if column is None or column.key in wanted.constant else [column, self.row.id]

    def _is_after(self, mark: Mark, among: Mapping[str, Any] | None = None) -> ColumnElement[bool]:
        """Whether a row comes after a mark; `among`: the columns to look at, by key, where they are not the table's."""
        column = self._column(mark.sort.field)
        id = self.row.id if among is None else among["id"]
        if column is None or (among is not None and column.key not in among):
            return id < mark.id if mark.sort.is_descending else id > mark.id
        value: Any = mark.value
        if isinstance(column.type, Utc):
            try:
                said = datetime.fromisoformat(mark.value)
                value = None if said.tzinfo is None else said.astimezone(UTC)
            except (ValueError, OverflowError):  # the latter at the ends of the calendar
                value = None
            if value is None:
                raise Invalid([Fault("cursor", "is no cursor; take `paging.nextCursor` of the page before as it is")])
        here: Any = tuple_(column if among is None else among[column.key], id)
        there: Any = tuple_(literal(value, column.type), literal(mark.id))
        return here < there if mark.sort.is_descending else here > there

    def _mark(self, row: R, request: PageRequest) -> Mark:
        column = self._column(request.sort.field)
        value = "" if column is None else getattr(row, column.key)
        return Mark(request.sort, value.isoformat() if isinstance(value, datetime) else str(value), row.id)

    async def _count(self, session: AsyncSession, wanted: Wanted) -> tuple[int, bool]:
        """How many rows there are at least, and whether that is all."""
        among = [*wanted.common]
        is_whole = True
        if wanted.probes and not wanted.is_indexed:
            edge = select(self.row.id).where(*wanted.common).order_by(self.row.id.desc()).offset(_COUNTED).limit(1)
            oldest = await session.scalar(edge)
            if oldest is not None:
                is_whole = False
                among.append(self.row.id > oldest)
        probes = [probe for probe, _ in wanted.probes]
        found = select(self.row.id).where(*among, *wanted.tests, *probes).limit(COUNT_LIMIT + 1)
        if wanted.tests and not wanted.is_indexed:
            found = self.covered(found)
        count = await session.scalar(select(func.count()).select_from(found.subquery())) or 0
        total_count, is_exact = _bounded(count)
        return total_count, is_whole and is_exact

    def _column(self, field: str) -> InstrumentedAttribute[Any] | None:
        return None if field == CREATED else self.columns[field]


def _bounded(count: int) -> tuple[int, bool]:
    return min(count, COUNT_LIMIT), count <= COUNT_LIMIT


def _ordered(keys: Sequence[Any], request: PageRequest) -> list[ColumnElement[Any]]:
    return [key.desc() if request.sort.is_descending else key.asc() for key in keys]
