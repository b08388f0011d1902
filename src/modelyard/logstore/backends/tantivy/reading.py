"""Searching: one query over all partitions, merged into one page.

A page continues after the order of its last line. Orders don't change and are unique, so lines that arrive meanwhile neither shift a page nor
repeat a line. The cursor also carries how many lines were given already, so that a later page needs to count only what follows.
"""

from __future__ import annotations

import base64
import heapq
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import tantivy
from tantivy import Occur, Order, Query

from modelyard.kit.clock import Clock
from modelyard.logstore.backends.tantivy import layout
from modelyard.logstore.backends.tantivy.matching import Matcher
from modelyard.logstore.backends.tantivy.partitions import Partition, Partitions, found_count
from modelyard.logstore.backends.tantivy.querying import read_query
from modelyard.logstore.port import BadQuery, LogPage, LogQuery

MAX_LIMIT = 1000

_log = logging.getLogger(__name__)
_CURSOR = re.compile(r"([dao])(\d{1,20})\.(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Direction:
    """A way to walk through lines: the column that orders them, and which end comes first."""

    mark: str
    column: str
    order: Order


_NEWEST_FIRST = _Direction("d", "order", Order.Desc)
_OLDEST_FIRST = _Direction("a", "order", Order.Asc)
_BY_ARRIVAL = _Direction("o", "arrival", Order.Asc)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page begins: after the line with this value, the last of so many that were given."""

    value: int
    given_count: int


@dataclass(frozen=True, slots=True)
class _Hit:
    value: int
    searcher: tantivy.Searcher
    address: tantivy.DocAddress


class LineReader:
    """Answers searches. Safe to use from several threads; reads what any process has committed."""

    def __init__(self, partitions: Partitions, matcher: Matcher, *, clock: Clock) -> None:
        self._partitions = partitions
        self._matcher = matcher
        self._clock = clock

    def search(self, query: LogQuery) -> LogPage:
        """A page of lines, by their time. Its cursor is None when nothing follows. Raises `BadQuery`."""
        direction = _OLDEST_FIRST if query.is_ascending else _NEWEST_FIRST
        place = _place(query.cursor, direction)
        hits, count = self._find(query, direction, place, query.limit + 1)
        page = hits[: query.limit]
        given_count = (place.given_count if place else 0) + len(page)
        cursor = _cursor(direction, page[-1].value, given_count) if len(hits) > query.limit else None
        return LogPage(lines=_lines(page), total_count=given_count - len(page) + count, cursor=cursor)

    def follow(self, query: LogQuery) -> LogPage:
        """A page of lines, by their arrival, and the number of those that have not been given yet.

        There is always a cursor: from there on come the lines that arrive next. Raises `BadQuery`.
        """
        place = _place(query.cursor, _BY_ARRIVAL)
        hits, count = self._find(query, _BY_ARRIVAL, place, query.limit)
        cursor = _cursor(_BY_ARRIVAL, hits[-1].value, 0) if hits else query.cursor or _cursor(_BY_ARRIVAL, 0, 0)
        return LogPage(lines=_lines(hits), total_count=count, cursor=cursor)

    def _find(self, query: LogQuery, direction: _Direction, place: _Place | None, limit: int) -> tuple[list[_Hit], int]:
        """The first hits after the place, in order, and the number of all that come after it."""
        wanted = self._clauses(query)
        if place is not None:
            low, high = (None, place.value) if direction.order == Order.Desc else (place.value, None)
            rest = self._matcher.column(direction.column, low, high)
            wanted = Query.boolean_query([(Occur.Must, wanted), (Occur.Must, rest)])
        hits: list[_Hit] = []
        total = 0
        for partition in self._partitions.all():
            searcher = _searcher(partition)
            if searcher is None or searcher.num_docs == 0:
                continue
            found, count = _find_in(searcher, wanted, direction, limit)
            hits.extend(found)
            total += count
        pick = heapq.nlargest if direction.order == Order.Desc else heapq.nsmallest
        return pick(limit, hits, key=lambda hit: hit.value), total

    def _clauses(self, query: LogQuery) -> Query:
        """The user's query, confined to the app key and the times from outside. What the text says can only narrow it."""
        if not 1 <= query.limit <= MAX_LIMIT:
            raise BadQuery(f"The limit is {query.limit}; expected 1 to {MAX_LIMIT}.")
        for time in (query.begin_at, query.end_at):
            if time is not None and time.utcoffset() is None:
                raise BadQuery("The begin and the end of a search need an offset from UTC.")
        clauses = [self._matcher.app_key(query.app_key)]
        if query.begin_at is not None or query.end_at is not None:
            begin, end = (
                None if time is None else layout.microseconds(time) for time in (query.begin_at, query.end_at)
            )
            clauses.append(self._matcher.between(begin, end))
        if query.text.strip():
            clauses.append(read_query(query.text, self._matcher, self._clock()))
        return clauses[0] if len(clauses) == 1 else Query.boolean_query([(Occur.Must, clause) for clause in clauses])


def _searcher(partition: Partition) -> tantivy.Searcher | None:
    """A view of the partition; None if it was dropped a moment ago or can't be read, which must not hide the others."""
    try:
        return partition.searcher()
    except (FileNotFoundError, ValueError, OSError) as error:
        if partition.path.exists():
            _log.error("Log partition %s can't be read: %s", partition.name, error)
        return None


def _find_in(searcher: tantivy.Searcher, wanted: Query, direction: _Direction, limit: int) -> tuple[list[_Hit], int]:
    """The first hits of one partition, and the number of all it has."""
    try:
        found = searcher.search(wanted, limit, count=True, order_by_field=direction.column, order=direction.order)
    except ValueError as error:
        # A phrase with wildcards that stands for too many words; tantivy notices only now and has no class for it.
        if "max expansions" in str(error):
            raise BadQuery("The wildcards match too many different words; expected more letters in them.") from None
        raise
    return [_Hit(int(value), searcher, address) for value, address in found.hits], found_count(found)


def _lines(hits: Sequence[_Hit]) -> list[dict[str, Any]]:
    return [orjson.loads(hit.searcher.doc(hit.address)["wire"][0]) for hit in hits]


def _cursor(direction: _Direction, value: int, given_count: int) -> str:
    return base64.urlsafe_b64encode(f"{direction.mark}{value}.{given_count}".encode()).decode().rstrip("=")


def _place(cursor: str | None, direction: _Direction) -> _Place | None:
    """What a cursor says; None for the first page."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        text = ""
    match = _CURSOR.fullmatch(text)
    if match is None or match[1] != direction.mark or int(match[2]) >= 2**64:
        raise BadQuery(
            "The cursor does not belong to a search in this direction; expected the cursor of an earlier page, unchanged."
        )
    return _Place(int(match[2]), int(match[3]))
