"""Use cases of use: keep samples, tell what was used, forget."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.resources.usage import repository
from modelyard.resources.usage.model import RESOLUTIONS, Retention, Sample, Stretch
from modelyard.resources.workloads.model import LimitsSpec
from modelyard.resources.workloads.service import Workloads

MAX_STRETCHES = 20_000
_ROWS_A_PIECE = 5_000


@dataclass(frozen=True, slots=True)
class UsageRequest:
    """Which use: times are seconds since 1970, inclusive. Without a resolution the finest one of at most `max_points`."""

    begin: int = 0
    end: int = 2**40
    instance: int | None = None
    resolution: int | None = None
    max_points: int = 1000


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What the instances of a workload used. `limits` is None when the workload is gone."""

    resolution: int
    limits: LimitsSpec | None
    stretches: Sequence[Stretch]


class Usage:
    """Use of the instances of workloads; their owners are known by the workload's id."""

    def __init__(
        self, database: Database, workloads: Workloads, retention: Retention | None = None, clock: Clock = utc_now
    ) -> None:
        self._database = database
        self._workloads = workloads
        self._retention = retention or Retention.of_days(90)
        self._clock = clock

    async def record(self, samples: Sequence[Sample]) -> None:
        """Keep samples of this moment."""
        async with self._database.write() as session:
            await repository.add(session, samples, self._clock().timestamp())

    async def report(self, workload_id: str, wanted: UsageRequest) -> UsageReport:
        """What the instances of a workload used; nothing where nothing is known of it."""
        async with self._database.read() as session:
            resolution = wanted.resolution or RESOLUTIONS[-1]
            if wanted.resolution is None:
                _, first = await repository.extent(session, workload_id, RESOLUTIONS[-1], 0, 2**40)
                for finer in RESOLUTIONS:
                    count, begin = await repository.extent(session, workload_id, finer, wanted.begin, wanted.end)
                    is_whole = begin is not None and begin - finer <= max(wanted.begin, (first or 0) + RESOLUTIONS[-1])
                    if 0 < count <= wanted.max_points and is_whole:
                        resolution = finer
                        break
            limit = min(MAX_STRETCHES, wanted.max_points * 100)
            found = await repository.stretches(
                session, workload_id, resolution, wanted.begin, wanted.end, wanted.instance, limit
            )
            workload = await self._workloads.get(session, workload_id)
        return UsageReport(resolution, None if workload is None else workload.spec.limits, found)

    async def trim(self, live_ids: Sequence[str]) -> None:
        """Delete what is too fine for its age, in pieces that hold nobody up."""
        now = self._clock().timestamp()
        for workload_id in live_ids:
            for resolution, seconds in self._retention.live.items():
                await self._drop(resolution, int(now - seconds), workload_id)
        for resolution, seconds in self._retention.ended.items():
            await self._drop(resolution, int(now - seconds), None)

    async def forget(self, workload_id: str) -> None:
        """Delete all that is known of an owner."""
        while True:
            async with self._database.write() as session:
                if await repository.drop_owner(session, workload_id, _ROWS_A_PIECE) < _ROWS_A_PIECE:
                    return
            await asyncio.sleep(0)

    async def _drop(self, resolution: int, before: int, workload_id: str | None) -> None:
        while True:
            async with self._database.write() as session:
                if await repository.drop_older(session, resolution, before, _ROWS_A_PIECE, workload_id) < _ROWS_A_PIECE:
                    return
            await asyncio.sleep(0)
