"""Large writes that have arrived and are not in their series yet.

A training that reports a thousand metrics at each step would have a thousand rows read and written with every write. So a large write is kept as it
came, in one row, and is durable with that. What waits is put into the series together: by the collector every second, by whoever reads the run's
metrics before it reads, and by a writer when much waits already. A series' row is then touched once for many writes.

That takes several transactions, so that nobody else who writes waits for a thousand series. What waits stays until the last of them: points that
are in their series already change nothing there, so that a crash in between costs nothing but the work.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from sqlalchemy import Table as SqlTable
from sqlalchemy import bindparam, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.metrics.blocks import Columns, joined, pack_tail, unpack_tail
from modelyard.resources.metrics.table import MetricArrivalRow, MetricRunRow

Key = tuple[int, str]
"""Instance and name: what a series of a run is known by."""

_SMALL_SERIES, _SMALL_POINTS = 20, 200
MAX_WAITING = 20_000
_A_WRITE = 32
"""What a write costs beside its points, in points."""

_ARRIVALS = cast(SqlTable, MetricArrivalRow.__table__)
_LENGTH = struct.Struct("<I")


def is_small(points: Mapping[str, Columns]) -> bool:
    """Whether a write may go into its series at once, where nothing waits of its run: it costs little, and nobody who reads has to wait."""
    return len(points) <= _SMALL_SERIES and sum(map(len, points.values())) <= _SMALL_POINTS


async def keep(session: AsyncSession, owner_id: str, instance: int, points: Mapping[str, Columns]) -> int:
    """Keep a write for a run that is held (`repository.held_run`). Returns how much waits now, in points."""
    weight = sum(map(len, points.values())) + _A_WRITE
    values = {"owner": owner_id, "weight": weight, "content": pack(instance, points)}
    return (await session.execute(_KEEP, values)).scalar_one()


async def waiting(session: AsyncSession, owner_id: str) -> Sequence[tuple[int, bytes]]:
    """What waits of a run, in the order of arrival: the place of each write, and its content (`together`)."""
    statement = select(_ARRIVALS.c.waiting, _ARRIVALS.c.content).where(_ARRIVALS.c.owner_id == owner_id)
    rows = await session.execute(statement.order_by(_ARRIVALS.c.waiting))
    return [(row.waiting, row.content) for row in rows]


async def drop_known(session: AsyncSession, owner_id: str, known: Sequence[tuple[int, bytes]]) -> None:
    """Remove these writes of a run that is held, as far as they still wait: another may have come in the place of one since."""
    places = select(_ARRIVALS.c.waiting, _ARRIVALS.c.content).where(
        _ARRIVALS.c.owner_id == owner_id, _ARRIVALS.c.waiting.in_([place for place, _ in known])
    )
    there = {(row.waiting, row.content) for row in await session.execute(places)}
    gone = [place for place, content in known if (place, content) in there]
    await session.execute(delete(_ARRIVALS).where(_ARRIVALS.c.owner_id == owner_id, _ARRIVALS.c.waiting.in_(gone)))


async def drop(session: AsyncSession, owner_id: str) -> None:
    """Remove all that waits of a run."""
    await session.execute(delete(_ARRIVALS).where(_ARRIVALS.c.owner_id == owner_id))


async def has(session: AsyncSession, owner_id: str) -> bool:
    """Whether something waits of a run."""
    statement = select(_ARRIVALS.c.waiting).where(_ARRIVALS.c.owner_id == owner_id).limit(1)
    return await session.scalar(statement) is not None


async def owners(session: AsyncSession, group_id: str | None = None) -> Sequence[str]:
    """Runs (of a group) of which something waits."""
    statement = select(_ARRIVALS.c.owner_id).distinct()
    if group_id is not None:
        of_group = MetricRunRow.group_id == group_id
        statement = statement.join(MetricRunRow, MetricRunRow.owner_id == _ARRIVALS.c.owner_id).where(of_group)
    return (await session.scalars(statement)).all()


def pack(instance: int, points: Mapping[str, Columns]) -> bytes:
    """A write as bytes: names with their counts, then all points in columns."""
    header = json.dumps([instance, [*points], [len(each) for each in points.values()]]).encode()
    whole = Columns()
    for each in points.values():
        whole.extend(each)
    return _LENGTH.pack(len(header)) + header + pack_tail(whole)


def together(contents: Iterable[bytes]) -> dict[Key, Columns]:
    """What several writes bring to each series, in the order in which they came."""
    found: dict[Key, Columns] = {}
    for content in contents:
        (length,) = _LENGTH.unpack_from(content)
        instance, names, counts = json.loads(content[_LENGTH.size :][:length])
        whole = unpack_tail(content[_LENGTH.size + length :])
        begin = 0
        for name, count in zip(names, counts, strict=True):
            new = whole[begin : begin + count]
            begin += count
            old = found.get((instance, name))
            found[instance, name] = new if old is None else joined(old, new)[0]
    return found


_KEEP = (
    insert(_ARRIVALS)
    .from_select(
        ["owner_id", "waiting", "content"],
        select(
            bindparam("owner", type_=_ARRIVALS.c.owner_id.type),
            func.coalesce(func.max(_ARRIVALS.c.waiting), literal(0))
            + bindparam("weight", type_=_ARRIVALS.c.waiting.type),
            bindparam("content", type_=_ARRIVALS.c.content.type),
        ).where(_ARRIVALS.c.owner_id == bindparam("owner")),
    )
    .returning(_ARRIVALS.c.waiting)
)
