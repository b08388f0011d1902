"""Ends instances that no workload knows of any more, so that nothing runs for ever for nobody.

One comes about when a launch comes so late that its workload has been deleted meanwhile. Three fences keep the sweep from what is somebody's:
the instance was launched longer ago than any reconcile may take; its workload is not in the database, or has that attempt neither at work nor
among those that it remembers; and its project is in the database, so that a server that was started on another, empty database does not
end what it merely doesn't know.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from modelyard.compute.port import Compute, Listed, Phase
from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import RetryLater
from modelyard.resources.workloads import repository
from modelyard.resources.workloads.service import workload_of

log = logging.getLogger(__name__)

_AGE = timedelta(minutes=10)
"""Twice as long as a reconcile may take (`ControllerSettings.limit_seconds`)."""
_INTERVAL_SECONDS = 120.0

IsProject = Callable[[str], Awaitable[bool]]
"""Tells whether there is a project of this id."""


class OrphanSweeper:
    """Looks for orphans now and then."""

    def __init__(self, database: Database, compute: Compute, is_project: IsProject, clock: Clock = utc_now) -> None:
        self._database = database
        self._compute = compute
        self._is_project = is_project
        self._clock = clock

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            try:
                await self.sweep()
            except Exception:
                log.exception("Instances that nobody knows of can't be looked for; trying again")

    async def sweep(self) -> list[str]:
        """Ask orphans that run to end, and remove those that have ended; their ids."""
        before = self._clock() - _AGE
        old = [each for each in await self._compute.list_instances() if each.launched_at < before]
        orphans = await self._orphans(old)
        for each in orphans:
            log.warning("Instance %s (%s) belongs to no workload: it is ended and removed", each.id, each.role)
            try:
                if each.phase is not Phase.EXITED:
                    await self._compute.stop(each.id)
                else:
                    await self._compute.remove(each.id)
            except RetryLater as later:
                log.info("Instance %s: %s", each.id, later)
        return [each.id for each in orphans]

    async def _orphans(self, listed: Sequence[Listed]) -> list[Listed]:
        workload_ids = {each.workload_id for each in listed}
        async with self._database.read() as session:
            rows = await repository.by_ids(session, workload_ids)
        remembered = {instance_id for row in rows for instance_id in workload_of(row).status.instance_ids}
        unknown = [each for each in listed if each.id not in remembered]
        projects = {each for each in {each.project_id for each in unknown} if await self._is_project(each)}
        strangers = [each.id for each in unknown if each.project_id not in projects]
        if strangers:
            log.warning(
                "Instances of projects that are not in this database are left alone (is it the right one?): %s",
                ", ".join(strangers),
            )
        return [each for each in unknown if each.project_id in projects]
