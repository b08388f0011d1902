"""Watches instances and asks for attention to workloads of which something new can be seen. Never acts itself.

Hints of the backend come at once; a slow look at everything that is live finds what hints don't tell: reports, readiness, and hints that
got lost. What is seen is compared with the record, so nothing has to be remembered here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from modelyard.compute.port import Compute, Observation
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.resources.workloads.decision import look
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Workload
from modelyard.resources.workloads.reconciler import probe_ready
from modelyard.resources.workloads.service import KIND, Workloads

log = logging.getLogger(__name__)

_BUSY_SECONDS = 0.2
_CALM_SECONDS = 1.0


class WorkloadObserver:
    """Looks at all live workloads again and again."""

    def __init__(self, database: Database, compute: Compute, workloads: Workloads) -> None:
        self._database = database
        self._compute = compute
        self._workloads = workloads
        self._wake = asyncio.Event()
        database.listen(self._on_topics)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_hints())
            group.create_task(self._look_around())

    async def _follow_hints(self) -> None:
        while True:
            try:
                async for instance_id in self._compute.watch():
                    await self._ask({instance_id.split(".", 1)[0]})
            except Exception:
                log.exception("Hints of the backend can't be read; trying again")
            await asyncio.sleep(1.0)

    async def _look_around(self) -> None:
        while True:
            wait_seconds = _CALM_SECONDS
            try:
                live = await self._workloads.live()
                await self._ask(await self._changed(live))
                if any(workload.state is not WorkloadState.RUNNING or _is_moving(workload) for workload in live):
                    wait_seconds = _BUSY_SECONDS
            except Exception:
                log.exception("Live workloads can't be looked at; trying again")
            self._wake.clear()
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._wake.wait()
                await asyncio.sleep(0.05)  # let a burst of news pass as one
            except TimeoutError:
                pass

    async def _changed(self, live: Sequence[Workload]) -> set[str]:
        ids = [seen.id for workload in live for seen in workload.status.instances]
        observations = {seen.id: seen for seen in await self._compute.observe(ids)}
        answers = await asyncio.gather(*(self._has_changed(workload, observations) for workload in live))
        return {workload.id for workload, has_changed in zip(live, answers, strict=True) if has_changed}

    async def _has_changed(self, workload: Workload, observations: dict[str, Observation]) -> bool:
        own = [observations[seen.id] for seen in workload.status.instances]
        ready = await probe_ready(workload, own)
        return any(
            look(seen, observations[seen.id], ready.get(seen.id, False)) != seen for seen in workload.status.instances
        )

    async def _ask(self, workload_ids: set[str]) -> None:
        if not workload_ids:
            return
        async with self._database.write() as session:
            for workload_id in workload_ids:
                await enqueue(session, KIND, workload_id)

    def _on_topics(self, topics: frozenset[str]) -> None:
        if KIND in topics:
            self._wake.set()


def _is_moving(workload: Workload) -> bool:
    """Whether something is expected soon: a step to end, a server to become ready."""
    if workload.spec.ready_path is not None:
        return not all(seen.is_ready for seen in workload.status.instances)
    return workload.report.get("step") != "running"
