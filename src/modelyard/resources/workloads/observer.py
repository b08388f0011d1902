"""Watches instances and asks for attention to workloads of which something new can be seen. Never acts itself.

Hints of the backend come at once; a slow look at everything that is live finds what hints don't tell: reports, readiness, and hints that
got lost. What is seen is compared with the record, so nothing has to be remembered here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from time import process_time

from modelyard.compute.port import Compute, Observation, Phase
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Workload
from modelyard.resources.workloads.reconciler import probe_ready
from modelyard.resources.workloads.service import KIND, Workloads
from modelyard.resources.workloads.sight import look

log = logging.getLogger(__name__)

_BUSY_SECONDS = 0.2
_CALM_SECONDS = 1.0
_SHARE = 0.05
_BUSY_SHARE = 0.25
_BURST_SECONDS = 0.05
_PROBES_AT_ONCE = 64
_PATIENCE_SECONDS = 0.25
_PACE_OF_EACH_SECONDS, _LONGEST_PACE_SECONDS = 0.2, 2.0
"""How long after one look at a run its next step is looked at, for each other run that goes through steps at the time.

Where many run, to look at each step alone would be most of what a short run costs. None is lost: reports tell the steps before, and owners
write all of them down. Ends are never paced.
"""


Hint = Callable[[str, Collection[str]], None]
"""Takes a kind and keys of which something new can be seen."""


class WorkloadObserver:
    """Looks at live workloads again and again: at those of which something is expected often, at all of them now and then.

    `hint` is the door of a controller in this process, which takes what is new in with its next transaction; without one the work queue is asked.
    """

    def __init__(self, database: Database, compute: Compute, workloads: Workloads, hint: Hint | None = None) -> None:
        self._database = database
        self._hint = hint
        self._compute = compute
        self._workloads = workloads
        self._wake = asyncio.Event()
        self._hinted: set[str] = set()
        self._has_hints = asyncio.Event()
        self._probing = asyncio.Semaphore(_PROBES_AT_ONCE)
        self._late: dict[str, asyncio.Task[None]] = {}
        self._asked_at: dict[str, float] = {}  # of those that go through steps now
        database.listen(self._on_topics)

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_hints())
                group.create_task(self._pass_hints_on())
                group.create_task(self._look_around())
        finally:
            for task in self._late.values():
                task.cancel()

    async def look(self, live: Sequence[Workload], patience_seconds: float | None = None) -> None:
        """Ask for attention to those of these of which something new can be seen.

        One server that answers late doesn't keep the others waiting: whoever takes longer than the patience is asked for when it is known.
        """
        new = [workload for workload in live if workload.id not in self._late]
        ids = [seen.id for workload in new for seen in workload.status.instances]
        observations = {seen.id: seen for seen in await self._compute.observe(ids)}
        looks = {asyncio.create_task(self._has_changed(workload, observations)): workload.id for workload in new}
        if not looks:
            return
        try:
            done, late = await asyncio.wait(looks, timeout=patience_seconds)
        except asyncio.CancelledError:
            for task in looks:
                task.cancel()
            raise
        for task in late:
            self._late[looks[task]] = asyncio.create_task(self._ask_later(looks[task], task))
        changed = {looks[task] for task in done if task.result()}
        urgent = {workload.id for workload in new if not _goes_in_steps(workload) or _has_ended(workload, observations)}
        await self._ask((changed & urgent) | self._paced(changed - urgent))

    async def _follow_hints(self) -> None:
        while True:
            try:
                async for instance_id in self._compute.watch():
                    self._hinted.add(instance_id.split(".", 1)[0])
                    self._has_hints.set()
            except Exception:
                log.exception("Hints of the backend can't be read; trying again")
            await asyncio.sleep(1.0)

    async def _pass_hints_on(self) -> None:
        """Hints that come while a transaction is under way share the next one."""
        while True:
            await self._has_hints.wait()
            self._has_hints.clear()
            hinted, self._hinted = self._hinted, set()
            try:
                await self._ask(self._paced(hinted))
            except Exception:
                log.exception("Hints of the backend can't be passed on; the next look will find what they tell")

    async def _look_around(self) -> None:
        clock = asyncio.get_running_loop().time
        next_full_at = 0.0
        while True:
            wait_seconds = _CALM_SECONDS
            begun_at = clock()
            spent = -process_time()
            try:
                live = await self._workloads.live()
                self._asked_at = {
                    each.id: self._asked_at.get(each.id, begun_at) for each in live if _goes_in_steps(each)
                }
                moving = [workload for workload in live if _is_moving(workload)]
                is_full = begun_at >= next_full_at
                await self.look(live if is_full else moving, _PATIENCE_SECONDS)
                # With thousands of them a look is work: then it is taken more seldom, not all the time.
                spent += process_time()
                if is_full:
                    next_full_at = clock() + max(_CALM_SECONDS, spent / _SHARE)
                wait_seconds = max(0.0, next_full_at - clock())
                if moving:
                    wait_seconds = min(wait_seconds, max(_BUSY_SECONDS, spent / _BUSY_SHARE))
            except Exception:
                log.exception("Live workloads can't be looked at; trying again")
                spent = 0.0
            # Let a burst of news pass as one, and leave most of the time to those who act on it.
            await asyncio.sleep(max(_BURST_SECONDS, spent / _BUSY_SHARE))
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._wake.wait()
            self._wake.clear()

    async def _ask_later(self, workload_id: str, look: asyncio.Task[bool]) -> None:
        try:
            if await look:
                await self._ask({workload_id})
        except Exception:
            log.exception("Workload %s can't be looked at; trying again", workload_id)
        finally:
            del self._late[workload_id]

    async def _has_changed(self, workload: Workload, observations: dict[str, Observation]) -> bool:
        own = [observations[seen.id] for seen in workload.status.instances]
        async with self._probing:
            ready = await probe_ready(workload, own)
        return any(
            look(seen, observations[seen.id], ready.get(seen.id, False)) != seen for seen in workload.status.instances
        )

    def _paced(self, workload_ids: Collection[str]) -> set[str]:
        """Those to ask for now; the others, which were asked for just now, come with the hints of a little later."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        pace_seconds = min(_LONGEST_PACE_SECONDS, _PACE_OF_EACH_SECONDS * (len(self._asked_at) - 1))
        due: set[str] = set()
        for workload_id in workload_ids:
            asked_at = self._asked_at.get(workload_id)
            if asked_at is None or now - asked_at >= pace_seconds:
                due.add(workload_id)
                if asked_at is not None:
                    self._asked_at[workload_id] = now
            else:
                loop.call_later(asked_at + pace_seconds - now, self._hear, workload_id)
        return due

    def _hear(self, workload_id: str) -> None:
        if workload_id not in self._asked_at:
            return  # its end was seen meanwhile
        self._hinted.add(workload_id)
        self._has_hints.set()

    async def _ask(self, workload_ids: set[str]) -> None:
        if not workload_ids:
            return
        if self._hint is not None:
            self._hint(KIND, workload_ids)
            return
        async with self._database.write() as session:
            for workload_id in sorted(workload_ids):
                await enqueue(session, KIND, workload_id, is_hint=True)

    def _on_topics(self, topics: frozenset[str]) -> None:
        if KIND in topics:
            self._wake.set()


def _goes_in_steps(workload: Workload) -> bool:
    """Whether it tells of its steps and then ends, so that nobody waits for it to be ready for requests."""
    return workload.spec.ready_path is None and workload.spec.ports == ()


def _has_ended(workload: Workload, observations: dict[str, Observation]) -> bool:
    return any(observations[seen.id].phase is Phase.EXITED and seen.exit is None for seen in workload.status.instances)


def _is_moving(workload: Workload) -> bool:
    """Whether something is expected soon: a step to end, a server to become ready, or one that has fallen silent to be given up."""
    if workload.state is not WorkloadState.RUNNING or any(seen.missed_probes for seen in workload.status.instances):
        return True
    if workload.spec.ready_path is not None:
        return not all(seen.is_ready for seen in workload.status.instances)
    return any(seen.report.get("step") != "running" for seen in workload.status.instances)
