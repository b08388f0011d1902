"""Queries on the metric store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy import bindparam, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.rows import row_of
from modelyard.eventfiles.reading import Place
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.metrics.blocks import Columns, Extreme, Spot, Summary, pack, pack_tail, summarise, unpack_tail
from modelyard.resources.metrics.comparison import Figures
from modelyard.resources.metrics.series import Series
from modelyard.resources.metrics.table import (
    MetricArrivalRow,
    MetricBlockRow,
    MetricFileRow,
    MetricRunRow,
    MetricSeriesRow,
)

_SERIES = cast(SqlTable, MetricSeriesRow.__table__)
_BLOCKS = cast(SqlTable, MetricBlockRow.__table__)
_AT_ONCE = 500
"""Values a statement names at most; SQLite and asyncpg take some 32,000 parameters."""


async def run_of(session: AsyncSession, owner_id: str) -> MetricRunRow | None:
    """What metrics belong to."""
    return await row_of(session, MetricRunRow, owner_id)


async def held_run(session: AsyncSession, owner_id: str) -> MetricRunRow | None:
    """Like `run_of`; nobody else writes points of it until the transaction ends."""
    return await session.get(MetricRunRow, owner_id, with_for_update=True, populate_existing=True)


async def add_run(session: AsyncSession, values: Mapping[str, Any]) -> None:
    """Add a run unless it is there."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    statement = (sqlite.insert if is_sqlite else postgresql.insert)(MetricRunRow).values(**values)
    await session.execute(statement.on_conflict_do_nothing())


async def open_runs(session: AsyncSession) -> Sequence[MetricRunRow]:
    """Those whose event files may have more."""
    return (await session.scalars(select(MetricRunRow).where(MetricRunRow.is_open.is_(True)))).all()


async def open_places(session: AsyncSession) -> dict[str, dict[str, Place]]:
    """How far the event files of open runs were read, by run and path."""
    of_open = select(MetricRunRow.owner_id).where(MetricRunRow.is_open.is_(True))
    found: dict[str, dict[str, Place]] = {}
    for row in (await session.scalars(select(MetricFileRow).where(MetricFileRow.owner_id.in_(of_open)))).all():
        found.setdefault(row.owner_id, {})[row.path] = Place(row.inode, row.offset)
    return found


async def place_of(session: AsyncSession, owner_id: str, path: str) -> Place | None:
    """How far an event file was read."""
    row = await session.get(MetricFileRow, (owner_id, path))
    return None if row is None else Place(row.inode, row.offset)


async def set_file(session: AsyncSession, owner_id: str, path: str, inode: int, offset: int) -> None:
    """Note how far a file was read."""
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    values = {"owner_id": owner_id, "path": path, "inode": inode, "offset": offset}
    statement = (sqlite.insert if is_sqlite else postgresql.insert)(MetricFileRow).values(**values)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["owner_id", "path"], set_={"inode": inode, "offset": offset})
    )


async def series_count(session: AsyncSession, owner_id: str) -> int:
    """How many series a run has."""
    return await session.scalar(select(func.count()).where(_SERIES.c.owner_id == owner_id)) or 0


async def series_named(
    session: AsyncSession, owner_id: str, keys: Collection[tuple[int, str]]
) -> dict[tuple[int, str], Series]:
    """Series by instance and name, with their tails."""
    found: dict[tuple[int, str], Series] = {}
    for instance in {instance for instance, _ in keys}:
        names = [name for each, name in keys if each == instance]
        for begin in range(0, len(names), _AT_ONCE):
            statement = select(_SERIES).where(
                _SERIES.c.owner_id == owner_id,
                _SERIES.c.instance == instance,
                _SERIES.c.name.in_(names[begin : begin + _AT_ONCE]),
            )
            for row in (await session.execute(statement)).all():
                found[instance, row.name] = _series(row)
    return found


async def series_page(
    session: AsyncSession, owner_id: str, names: Sequence[str], instance: int | None, request: PageRequest
) -> Page[Series]:
    """Series of a run that have points, by name and instance. Tails are read only where names are asked for."""
    conditions = [_SERIES.c.owner_id == owner_id, _SERIES.c.point_count > 0]
    if names:
        conditions.append(_SERIES.c.name.in_(names))
    if instance is not None:
        conditions.append(_SERIES.c.instance == instance)
    columns = _SERIES.c if names else [column for column in _SERIES.c if column.name != "tail"]
    total_count = await session.scalar(select(func.count()).select_from(_SERIES).where(*conditions)) or 0
    statement = select(*columns).where(*conditions).order_by(_SERIES.c.name, _SERIES.c.instance)
    rows = await session.execute(statement.limit(request.limit).offset(request.offset))
    return Page([_series(row) for row in rows.all()], total_count, request)


async def names_in_group(session: AsyncSession, group_id: str) -> list[str]:
    """The names of all metrics of a group's runs, in order."""
    statement = select(_SERIES.c.name).where(_SERIES.c.group_id == group_id).distinct().order_by(_SERIES.c.name)
    return list((await session.scalars(statement)).all())


async def figures_in_group(session: AsyncSession, group_id: str, names: Sequence[str]) -> dict[str, dict[str, Figures]]:
    """What these metrics come to in every run of a group, by run and name."""
    found: dict[str, dict[str, Figures]] = {}
    for name in names:
        rows = await session.execute(_figures().where(_SERIES.c.group_id == group_id, _SERIES.c.name == name))
        _collect(found, rows.all())
    return found


async def figures_of(
    session: AsyncSession, owner_ids: Sequence[str], names: Sequence[str], name_count: int
) -> dict[str, dict[str, Figures]]:
    """What these metrics, of `name_count` that there are, come to in these runs, by run and name."""
    found: dict[str, dict[str, Figures]] = {}
    for begin in range(0, len(owner_ids), _AT_ONCE):
        statement = _figures().where(_SERIES.c.owner_id.in_(owner_ids[begin : begin + _AT_ONCE]))
        if len(names) < name_count:
            statement = statement.where(_SERIES.c.name.in_(names))
        _collect(found, (await session.execute(statement)).all())
    return found


async def series_in(session: AsyncSession, owner_id: str, instance: int, directory: str) -> list[Series]:
    """The series that come from event files of a directory."""
    statement = select(_SERIES).where(
        _SERIES.c.owner_id == owner_id, _SERIES.c.instance == instance, _SERIES.c.directory == directory
    )
    return [_series(row) for row in (await session.execute(statement)).all()]


async def save_series(
    session: AsyncSession, owner_id: str, group_id: str | None, changed: Sequence[Series], new: Sequence[Series]
) -> None:
    """Write series."""
    connection = await session.connection()
    if new:
        rows = [
            {
                "id": each.id,
                "owner_id": owner_id,
                "group_id": group_id,
                "instance": each.instance,
                "name": each.name,
                "directory": each.directory,
                **_values(each),
            }
            for each in new
        ]
        await connection.execute(insert(_SERIES), rows)
    if changed:
        await connection.execute(_UPDATE_SERIES, [{"key": each.id, **_values(each)} for each in changed])


async def last_blocks(session: AsyncSession, series_ids: Sequence[int]) -> dict[int, bytes]:
    """The packed content of each series' last block, where it has room."""
    found: dict[int, bytes] = {}
    for series_id in series_ids:
        statement = (
            select(_BLOCKS.c.content)
            .where(_BLOCKS.c.series_id == series_id)
            .order_by(_BLOCKS.c.first_step.desc(), _BLOCKS.c.first_time.desc())
            .limit(1)
        )
        content = await session.scalar(statement)
        if content is not None:
            found[series_id] = content
    return found


async def block_keys(session: AsyncSession, series_id: int) -> list[Spot]:
    """Where the blocks of a series begin, in order."""
    statement = (
        select(_BLOCKS.c.first_step, _BLOCKS.c.first_time)
        .where(_BLOCKS.c.series_id == series_id)
        .order_by(_BLOCKS.c.first_step, _BLOCKS.c.first_time)
    )
    return [(row.first_step, row.first_time) for row in (await session.execute(statement)).all()]


async def blocks_at(session: AsyncSession, series_id: int, keys: Sequence[Spot]) -> dict[Spot, bytes]:
    """Packed contents of blocks by where they begin."""
    found: dict[Spot, bytes] = {}
    for begin in range(0, len(keys), _AT_ONCE):
        statement = select(_BLOCKS.c.first_step, _BLOCKS.c.first_time, _BLOCKS.c.content).where(
            _BLOCKS.c.series_id == series_id,
            tuple_(_BLOCKS.c.first_step, _BLOCKS.c.first_time).in_(keys[begin : begin + _AT_ONCE]),
        )
        for row in (await session.execute(statement)).all():
            found[row.first_step, row.first_time] = row.content
    return found


async def summaries_of(
    session: AsyncSession, series_id: int, from_step: int | None = None, to_step: int | None = None
) -> list[Summary]:
    """Summaries of a series' blocks that reach into a range of steps, in order. Contents are not read."""
    conditions = [_BLOCKS.c.series_id == series_id]
    if from_step is not None:
        conditions.append(_BLOCKS.c.last_step >= from_step)
    if to_step is not None:
        conditions.append(_BLOCKS.c.first_step <= to_step)
    columns = [column for column in _BLOCKS.c if column.name != "content"]
    statement = select(*columns).where(*conditions).order_by(_BLOCKS.c.first_step, _BLOCKS.c.first_time)
    return [_summary(row) for row in (await session.execute(statement)).all()]


async def add_blocks(session: AsyncSession, blocks: Iterable[tuple[int, Columns]]) -> None:
    """Add blocks of series."""
    rows = [_block(series_id, columns) for series_id, columns in blocks]
    if rows:
        await (await session.connection()).execute(insert(_BLOCKS), rows)


async def drop_blocks(session: AsyncSession, keys: Sequence[tuple[int, Spot]]) -> None:
    """Remove blocks by series and where they begin."""
    if keys:
        rows = [{"key": series_id, "at_step": step, "at_time": time} for series_id, (step, time) in keys]
        await (await session.connection()).execute(_DROP_BLOCK, rows)


async def drop_some(session: AsyncSession, owner_id: str, limit: int) -> bool:
    """Remove up to about `limit` rows of a run's points. False when nothing was left."""
    series_ids = (await session.scalars(select(_SERIES.c.id).where(_SERIES.c.owner_id == owner_id).limit(limit))).all()
    for series_id in series_ids:
        keys = select(_BLOCKS.c.first_step, _BLOCKS.c.first_time).where(_BLOCKS.c.series_id == series_id).limit(limit)
        dropped = await session.execute(
            delete(_BLOCKS).where(
                _BLOCKS.c.series_id == series_id, tuple_(_BLOCKS.c.first_step, _BLOCKS.c.first_time).in_(keys)
            )
        )
        dropped_count = cast(Any, dropped).rowcount
        limit -= dropped_count + 1
        if limit <= 0:
            return True
        await session.execute(delete(_SERIES).where(_SERIES.c.id == series_id))
    await session.execute(delete(MetricArrivalRow).where(MetricArrivalRow.owner_id == owner_id))
    files = await session.execute(delete(MetricFileRow).where(MetricFileRow.owner_id == owner_id))
    return bool(series_ids) or cast(Any, files).rowcount > 0


async def drop_run(session: AsyncSession, owner_id: str) -> None:
    """Remove what metrics belonged to."""
    await session.execute(delete(MetricRunRow).where(MetricRunRow.owner_id == owner_id))


async def mark_gone(session: AsyncSession, owner_id: str) -> None:
    """Let nothing be added any more."""
    await session.execute(
        update(MetricRunRow).where(MetricRunRow.owner_id == owner_id).values(is_gone=True, is_open=False)
    )


_UPDATE_SERIES = update(_SERIES).where(_SERIES.c.id == bindparam("key"))
_DROP_BLOCK = delete(_BLOCKS).where(
    _BLOCKS.c.series_id == bindparam("key"),
    _BLOCKS.c.first_step == bindparam("at_step"),
    _BLOCKS.c.first_time == bindparam("at_time"),
)


def _figures():
    columns = _SERIES.c
    return (
        select(
            columns.owner_id,
            columns.name,
            columns.last_value,
            columns.last_step,
            columns.point_count,
            columns.low_value,
            columns.low_step,
            columns.high_value,
            columns.high_step,
        )
        .where(columns.point_count > 0)
        .order_by(columns.instance)
    )


def _collect(found: dict[str, dict[str, Figures]], rows: Iterable[Any]) -> None:
    """By run and name; of several instances the first one counts."""
    for owner_id, name, *figures in rows:
        found.setdefault(owner_id, {}).setdefault(name, Figures(*figures))


def _series(row: Any) -> Series:
    """Columns by their places: a write of a thousand metrics reads as many rows, and looking each name up costs more than the rest."""
    (
        series_id,
        _owner_id,
        _group_id,
        instance,
        name,
        directory,
        point_count,
        first_step,
        last_step,
        last_time,
        last_value,
        low_step,
        low_value,
        high_step,
        high_value,
        odd_count,
        packed_count,
        *tail,
    ) = row
    return Series(
        id=series_id,
        instance=instance,
        name=name,
        directory=directory,
        point_count=point_count,
        packed_count=packed_count,
        first_step=first_step,
        last=(last_step, last_time),
        last_value=last_value,
        low=None if low_value is None else Extreme(low_step, 0, low_value),
        high=None if high_value is None else Extreme(high_step, 0, high_value),
        odd_count=odd_count,
        tail=unpack_tail(tail[0] if tail else None),
    )


def _values(series: Series) -> dict[str, Any]:
    return {
        "point_count": series.point_count,
        "first_step": series.first_step,
        "last_step": series.last[0],
        "last_time": series.last[1],
        "last_value": series.last_value,
        "low_step": None if series.low is None else series.low.step,
        "low_value": None if series.low is None else series.low.value,
        "high_step": None if series.high is None else series.high.step,
        "high_value": None if series.high is None else series.high.value,
        "odd_count": series.odd_count,
        "packed_count": series.packed_count,
        "tail": pack_tail(series.tail),
    }


def _block(series_id: int, columns: Columns) -> dict[str, Any]:
    summary = summarise(columns)
    values: dict[str, Any] = {
        "series_id": series_id,
        "first_step": summary.first[0],
        "first_time": summary.first[1],
        "last_step": summary.last[0],
        "last_time": summary.last[1],
        "point_count": summary.count,
        "odd_count": summary.odd_count,
        "content": pack(columns),
    }
    for name, extreme in (("low", summary.low), ("high", summary.high), ("odd", summary.odd)):
        values[f"{name}_step"] = None if extreme is None else extreme.step
        values[f"{name}_time"] = None if extreme is None else extreme.time
        values[f"{name}_value"] = None if extreme is None else extreme.value
    return values


def _summary(row: Any) -> Summary:
    return Summary(
        count=row.point_count,
        first=(row.first_step, row.first_time),
        last=(row.last_step, row.last_time),
        low=None if row.low_value is None else Extreme(row.low_step, row.low_time, row.low_value),
        high=None if row.high_value is None else Extreme(row.high_step, row.high_time, row.high_value),
        odd=None if row.odd_step is None else Extreme(row.odd_step, row.odd_time, row.odd_value),
        odd_count=row.odd_count,
    )
