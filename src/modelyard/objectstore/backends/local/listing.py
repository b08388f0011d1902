"""Listings: names in byte order between markers, folded at a delimiter.

Rows come in batches by range scans of an index. Where a batch ends inside a folded directory, the next scan starts behind the whole
directory, so a listing of directories costs by what it shows, not by what lies in them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.objectstore.backends.local.model import ListingRequest, StoredObject, Subdirectory
from modelyard.objectstore.backends.local.tables import containers, objects

_BATCH_ROWS = 1000
_LAST_CHARACTER = "\U0010ffff"

Scan = Callable[["Bounds", int], Awaitable[Sequence[Any]]]


class Bounds:
    """The names that are still to be looked at: `low` and `high` as texts, each with whether the text itself is included."""

    def __init__(self, request: ListingRequest, prefix: str) -> None:
        self.is_reverse = request.is_reverse
        low, high = request.marker, request.end_marker
        if request.is_reverse:
            low, high = high, low
        self.low, self.is_low_included = low, False
        self.high: str | None = high or None
        if prefix and prefix > self.low:
            self.low, self.is_low_included = prefix, True
        end = after_prefix(prefix)
        if end is not None and (self.high is None or end < self.high):
            self.high = end

    def conditions(self, name: ColumnElement[str]) -> list[ColumnElement[bool]]:
        """The bounds on a column."""
        found: list[ColumnElement[bool]] = []
        if self.low:
            found.append(name >= self.low if self.is_low_included else name > self.low)
        if self.high is not None:
            found.append(name < self.high)
        return found

    def pass_name(self, name: str) -> None:
        """Go on behind this name."""
        if self.is_reverse:
            self.high = name
        else:
            self.low, self.is_low_included = name, False

    def pass_directory(self, directory: str) -> bool:
        """Go on behind everything that begins with `directory`; False where nothing can follow."""
        if self.is_reverse:
            self.high = directory
            return True
        end = after_prefix(directory)
        if end is None:
            return False
        self.low, self.is_low_included = end, True
        return True


async def list_objects(
    session: AsyncSession, container_id: str, request: ListingRequest
) -> list[StoredObject | Subdirectory]:
    """Objects and directories of a container. Source of the rules: the container listing of OpenStack Swift."""

    async def scan(bounds: Bounds, count: int) -> Sequence[Any]:
        query = select(objects).where(objects.c.container_id == container_id, *bounds.conditions(objects.c.name))
        return (await session.execute(_ordered(query, objects.c.name, bounds).limit(count))).all()

    rows = await _fold(scan, request)
    return [row if isinstance(row, Subdirectory) else StoredObject(**row._mapping) for row in rows]


async def list_containers(session: AsyncSession, account: str, request: ListingRequest) -> list[Any]:
    """Rows of `object_containers` and directories of an account."""

    async def scan(bounds: Bounds, count: int) -> Sequence[Any]:
        query = select(containers).where(containers.c.account == account, *bounds.conditions(containers.c.name))
        return (await session.execute(_ordered(query, containers.c.name, bounds).limit(count))).all()

    return await _fold(scan, request)


def after_prefix(prefix: str) -> str | None:
    """The first text in byte order that is greater than all texts which begin with `prefix`; None where there is none."""
    prefix = prefix.rstrip(_LAST_CHARACTER)
    if not prefix:
        return None
    code = ord(prefix[-1]) + 1
    if code == 0xD800:  # surrogates are no characters
        code = 0xE000
    return prefix[:-1] + chr(code)


async def _fold(scan: Scan, request: ListingRequest) -> list[Any]:
    prefix, delimiter, path = request.prefix, request.delimiter, None
    if request.path is not None:
        path = request.path.rstrip("/") + "/" if request.path else ""
        prefix, delimiter = path, "/"
    bounds = Bounds(request, prefix)
    found: list[Any] = []
    while len(found) < request.limit:
        count = min(_BATCH_ROWS, request.limit - len(found)) if not delimiter else _BATCH_ROWS
        rows = await scan(bounds, count)
        directory: str | None = None
        for row in rows:
            name: str = row.name
            if directory is not None and name.startswith(directory):
                continue
            directory = _directory(name, prefix, delimiter)
            if len(found) >= request.limit:
                return found
            if path is not None:
                if directory is None or directory == name:
                    if name != path:
                        found.append(row)
                    directory = None
            elif directory is None:
                found.append(row)
            elif directory not in (request.marker, request.end_marker):
                found.append(Subdirectory(directory))
        if len(rows) < count:
            return found
        bounds.pass_name(rows[-1].name)
        if directory is not None and not bounds.pass_directory(directory):
            return found
    return found


def _directory(name: str, prefix: str, delimiter: str) -> str | None:
    if not delimiter:
        return None
    end = name.find(delimiter, len(prefix))
    return None if end < 0 else name[: end + len(delimiter)]


def _ordered(query: Select[Any], name: ColumnElement[str], bounds: Bounds) -> Select[Any]:
    return query.order_by(name.desc() if bounds.is_reverse else name.asc())
