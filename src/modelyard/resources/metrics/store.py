"""Adds points to series: decides in `series`, reads and writes what that needs, all in the caller's transaction."""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.metrics import repository
from modelyard.resources.metrics.arrivals import Key
from modelyard.resources.metrics.blocks import (
    BLOCK_POINTS,
    Columns,
    Spot,
    before,
    chunked,
    halved,
    joined,
    unpack,
)
from modelyard.resources.metrics.model import Limits
from modelyard.resources.metrics.series import Series, add, count, recount
from modelyard.resources.metrics.table import MetricRunRow

_MAX_NOTES = 20
_BLOCKS_AT_ONCE = 100
_SERIES_AT_ONCE = 200


async def add_points(
    session: AsyncSession,
    run: MetricRunRow,
    wanted: Mapping[Key, Columns],
    limits: Limits,
    directories: Mapping[Key, str] | None = None,
) -> None:
    """Add points to a run that is held (`repository.held_run`). `directories`: where they come from, for those from event files."""
    known = await repository.series_named(session, run.owner_id, wanted.keys())
    new = await _new_series(session, run, [key for key in wanted if key not in known], limits, directories or {})
    fulls: list[tuple[Series, Columns]] = []
    for number, (key, columns) in enumerate(wanted.items()):
        if number % _SERIES_AT_ONCE == 0:
            await asyncio.sleep(0)  # a thousand series are tens of milliseconds of work: others get a turn
        series = known.get(key) or new.get(key)
        if series is None:
            continue
        room = limits.points_per_series - series.point_count
        if len(columns) > room:
            note(run, f"'{series.name}' has {limits.points_per_series:,} points; more are not kept.")
            columns = columns[: max(room, 0)]
        change = add(series, columns)
        if len(change.late):
            await _insert_late(session, series, change.late)
        if len(change.full):
            fulls.append((series, change.full))
    await _append(session, fulls)
    await repository.save_series(session, run.owner_id, run.group_id, [*known.values()], [*new.values()])


async def forget_from(session: AsyncSession, run: MetricRunRow, instance: int, directory: str, step: int) -> None:
    """Take away what the event files of a directory have said from a step on: its writer has started again there."""
    changed = await repository.series_in(session, run.owner_id, instance, directory)
    for series in changed:
        if series.last[0] < step:
            continue
        series.tail = before(series.tail, (step, -(2**62)))[0]
        keys = await repository.block_keys(session, series.id)
        void = [key for key in keys if key[0] >= step]
        await repository.drop_blocks(session, [(series.id, key) for key in void])
        kept = keys[: len(keys) - len(void)]
        last = Columns()
        if kept:
            last = unpack((await repository.blocks_at(session, series.id, kept[-1:]))[kept[-1]])
            if last.last[0] >= step:
                last = before(last, (step, -(2**62)))[0]
                await repository.drop_blocks(session, [(series.id, kept[-1])])
                await repository.add_blocks(session, [(series.id, last)])
        recount(series, await repository.summaries_of(session, series.id), last)
    await repository.save_series(session, run.owner_id, run.group_id, changed, [])


def note(run: MetricRunRow, text: str) -> None:
    """Say once what was left out."""
    if text not in run.notes and len(run.notes) < _MAX_NOTES:
        run.notes = [*run.notes, text]


async def _new_series(
    session: AsyncSession,
    run: MetricRunRow,
    keys: Sequence[Key],
    limits: Limits,
    directories: Mapping[Key, str],
) -> dict[Key, Series]:
    if not keys:
        return {}
    room = max(0, limits.series_per_run - await repository.series_count(session, run.owner_id))
    if len(keys) > room:
        note(run, f"The run has {limits.series_per_run:,} metrics; more are not kept.")
    return {
        (instance, name): Series(secrets.randbits(62), instance, name, directories.get((instance, name)))
        for instance, name in keys[:room]
    }


async def _append(session: AsyncSession, fulls: Sequence[tuple[Series, Columns]]) -> None:
    """Pack points that come after all that are packed: the last block is filled up first."""
    packed = await repository.last_blocks(session, [series.id for series, _ in fulls])
    dropped: list[tuple[int, Spot]] = []
    added: list[tuple[int, Columns]] = []
    for series, columns in fulls:
        last = unpack(packed[series.id]) if series.id in packed else Columns()
        if 0 < len(last) < BLOCK_POINTS:
            dropped.append((series.id, last.first))
            last.extend(columns)
            columns = last
        added += [(series.id, block) for block in chunked(columns)]
    await repository.drop_blocks(session, dropped)
    await repository.add_blocks(session, added)


async def _insert_late(session: AsyncSession, series: Series, late: Columns) -> None:
    """Put points between those that are packed."""
    keys = await repository.block_keys(session, series.id)
    by_block: dict[Spot, list[int]] = {}
    for index, spot in enumerate(late.spots()):
        by_block.setdefault(keys[max(0, bisect_right(keys, spot) - 1)], []).append(index)
    touched = [*by_block]
    for begin in range(0, len(touched), _BLOCKS_AT_ONCE):
        part = touched[begin : begin + _BLOCKS_AT_ONCE]
        contents = await repository.blocks_at(session, series.id, part)
        dropped: list[tuple[int, Spot]] = []
        added: list[tuple[int, Columns]] = []
        for key in part:
            indices = by_block[key]
            both, fresh = joined(unpack(contents[key]), late[indices[0] : indices[-1] + 1])
            if len(fresh):
                dropped.append((series.id, key))
                added += [(series.id, block) for block in halved(both)]
                series.packed_count += len(fresh)
                count(series, fresh)
        await repository.drop_blocks(session, dropped)
        await repository.add_blocks(session, added)
