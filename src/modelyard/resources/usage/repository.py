"""Queries on use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.usage.model import RESOLUTIONS, Sample, Stretch
from modelyard.resources.usage.table import UsageRow

_ROWS = cast(SqlTable, UsageRow.__table__)
_KEY = (_ROWS.c.owner_id, _ROWS.c.instance, _ROWS.c.resolution, _ROWS.c.at)
_SUMS = ("sample_count", "cpu_sum", "memory_sum", "gpu_count", "gpu_sum")
_MOSTS = ("cpu_max", "memory_max", "disk_max", "gpu_memory_max")


async def add(session: AsyncSession, samples: Sequence[Sample], now: float) -> None:
    """Let samples of this moment count in their rows of every resolution."""
    if not samples:
        return
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    statement = (sqlite.insert if is_sqlite else postgresql.insert)(_ROWS)
    most = func.max if is_sqlite else func.greatest
    new = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=[*_KEY],
        set_={
            **{name: _ROWS.c[name] + new[name] for name in _SUMS},
            **{name: most(_ROWS.c[name], new[name]) for name in _MOSTS},
        },
    )
    rows = [_row(sample, resolution, int(now)) for sample in samples for resolution in RESOLUTIONS]
    await (await session.connection()).execute(statement, rows)


async def extent(session: AsyncSession, owner_id: str, resolution: int, begin: int, end: int) -> tuple[int, int | None]:
    """How many rows of a resolution there are at most of one instance in a time, and where the first one begins."""
    per_instance = (
        select(func.count().label("count"), func.min(_ROWS.c.at).label("first"))
        .where(_ROWS.c.owner_id == owner_id, _ROWS.c.resolution == resolution, _ROWS.c.at >= begin, _ROWS.c.at <= end)
        .group_by(_ROWS.c.instance)
        .subquery()
    )
    row = (await session.execute(select(func.max(per_instance.c.count), func.min(per_instance.c.first)))).one()
    return row[0] or 0, row[1]


async def stretches(
    session: AsyncSession, owner_id: str, resolution: int, begin: int, end: int, instance: int | None, limit: int
) -> list[Stretch]:
    """The rows of a resolution in a time, by instance and time; the newest `limit` of them."""
    conditions = [
        _ROWS.c.owner_id == owner_id,
        _ROWS.c.resolution == resolution,
        _ROWS.c.at >= begin,
        _ROWS.c.at <= end,
    ]
    if instance is not None:
        conditions.append(_ROWS.c.instance == instance)
    statement = select(_ROWS).where(*conditions).order_by(_ROWS.c.at.desc(), _ROWS.c.instance).limit(limit)
    rows = (await session.execute(statement)).all()
    return sorted((_stretch(row) for row in rows), key=lambda each: (each.instance, each.at))


async def drop_older(
    session: AsyncSession, resolution: int, before: int, limit: int, owner_id: str | None = None
) -> int:
    """Delete up to `limit` rows of a resolution that begin before a moment; how many there were."""
    conditions = [_ROWS.c.resolution == resolution, _ROWS.c.at < before]
    if owner_id is not None:
        conditions.append(_ROWS.c.owner_id == owner_id)
    return await _drop(session, conditions, limit)


async def drop_owner(session: AsyncSession, owner_id: str, limit: int) -> int:
    """Delete up to `limit` rows of an owner; how many there were."""
    return await _drop(session, [_ROWS.c.owner_id == owner_id], limit)


async def _drop(session: AsyncSession, conditions: Sequence[Any], limit: int) -> int:
    some = select(*_KEY).where(*conditions).limit(limit)
    dropped = await session.execute(delete(_ROWS).where(tuple_(*_KEY).in_(some)))
    return int(cast(Any, dropped).rowcount)


def _row(sample: Sample, resolution: int, now: int) -> dict[str, Any]:
    return {
        "owner_id": sample.owner_id,
        "instance": sample.instance,
        "resolution": resolution,
        "at": now - now % resolution,
        "sample_count": 1,
        "cpu_sum": sample.cpu_cores,
        "cpu_max": sample.cpu_cores,
        "memory_sum": float(sample.memory_bytes),
        "memory_max": sample.memory_bytes,
        "disk_max": sample.disk_bytes,
        "gpu_count": 0 if sample.gpu_percent is None else 1,
        "gpu_sum": sample.gpu_percent or 0.0,
        "gpu_memory_max": sample.gpu_memory_bytes or 0,
    }


def _stretch(row: Any) -> Stretch:
    has_gpu = row.gpu_count > 0
    return Stretch(
        instance=row.instance,
        at=row.at,
        cpu_cores=row.cpu_sum / row.sample_count,
        cpu_cores_max=row.cpu_max,
        memory_bytes=row.memory_sum / row.sample_count,
        memory_bytes_max=row.memory_max,
        disk_bytes=row.disk_max,
        gpu_percent=row.gpu_sum / row.gpu_count if has_gpu else None,
        gpu_memory_bytes=row.gpu_memory_max if has_gpu else None,
    )
