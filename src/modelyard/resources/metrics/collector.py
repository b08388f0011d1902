"""Brings what runs write into their event files to the metric store, while they run and until all of it is there.

How far each file was read stands in the database and moves in the transaction that adds the points; nothing is remembered here. A server that is
killed in between goes on where the database says, and if two should ever collect at once, the second one's piece is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from modelyard.db.engine import Database
from modelyard.eventfiles.messages import ReadingFailed
from modelyard.eventfiles.process import ReadingProcess
from modelyard.eventfiles.reading import Place
from modelyard.resources.metrics.service import Metrics, Source
from modelyard.resources.workloads.lifecycle import LIFECYCLE
from modelyard.resources.workloads.model import Desired, Workload
from modelyard.resources.workloads.service import Workloads

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_SHARE = 0.5  # of one core at most is spent on reading when nothing else is to do
_BYTES_A_TURN = 1 << 20
_POINTS_A_TURN = 5_000


class Collector:
    """Reads the event files of all runs that are open, again and again."""

    def __init__(
        self, database: Database, metrics: Metrics, workloads: Workloads, *, poll_seconds: float = _POLL_SECONDS
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._workloads = workloads
        self._poll_seconds = poll_seconds
        self._reading = ReadingProcess()

    async def run(self) -> None:
        """Collect until cancelled."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                begun_at = clock()
                has_more = False
                try:
                    has_more = await self.collect()
                except Exception:
                    log.exception("Event files can't be collected; trying again")
                spent = clock() - begun_at
                await asyncio.sleep(spent / _SHARE - spent if has_more else max(self._poll_seconds, spent))
        finally:
            await self._reading.close()

    async def collect(self) -> bool:
        """One turn: what waits of all runs, and a piece of every run that has something new. True when there is more to read at once."""
        for run_id in await self._metrics.waiting_runs():
            try:
                await self._metrics.settle(run_id)
            except Exception:  # what ails one run must not keep the others waiting
                log.exception("Metrics that were written for %s can't be put into their series; trying again", run_id)
        sources = await self._metrics.open_sources()
        if not sources:
            return False
        ended = await self._ended([source.owner_id for source in sources])
        has_more = False
        for source in sources:
            try:
                has_more |= await self._collect(source, is_over=source.owner_id in ended)
            except ReadingFailed as failure:
                log.warning("Event files of %s can't be read: %s", source.owner_id, failure)
        return has_more

    async def close(self) -> None:
        """End the reading process."""
        await self._reading.close()

    async def _collect(self, source: Source, *, is_over: bool) -> bool:
        found = await self._reading.read_new(source.directory, source.places, _BYTES_A_TURN, _POINTS_A_TURN)
        places = dict(source.places)
        new = [piece for piece in found.pieces if piece.end > piece.begin]
        for piece in new:
            if not await self._metrics.take_piece(replace(source, places=places), piece):
                return False
            places[piece.path] = Place(piece.inode, piece.end)
        notes = list(found.notes)
        is_read = is_over and not new
        if is_read:
            # Nothing writes any more: what is not whole now never will be.
            notes += [f"'{piece.path}' ends in the middle of a record." for piece in found.pieces]
        if notes or is_read:
            await self._metrics.take_notes(source.owner_id, notes, is_over=is_read)
        return found.has_more or (is_over and not is_read)

    async def _ended(self, owner_ids: Sequence[str]) -> set[str]:
        """Owners of which nothing runs any more, and nothing will."""
        async with self._database.read() as session:
            workloads = await self._workloads.get_many(session, owner_ids)
        return {owner_id for owner_id in owner_ids if _is_over(workloads.get(owner_id))}


def _is_over(workload: Workload | None) -> bool:
    if workload is None:
        return True
    return LIFECYCLE.is_final(workload.state) or (workload.desired is Desired.DELETE and workload.ended_at is not None)
