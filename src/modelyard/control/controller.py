"""The loop that gives work items to reconcilers.

One controller runs in each server process. Keys are independent of each other and run side by side; one key is never run twice at once,
in however many processes, because a claim is a lease. Hints (a commit in this process) wake the loop at once; a slow poll finds what other
processes asked for and what was abandoned. Finished items are given back together with the next claim, in one transaction, and hints of
observers go with them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from modelyard.control.reconciler import Again, Reconciler
from modelyard.control.work import Finished, Lease, LeaseLost, WorkItem, WorkQueue
from modelyard.db.engine import Database
from modelyard.kit.backoff import Backoff
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import RetryLater

log = logging.getLogger(__name__)

_SHORTEST_WAIT_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """How the loop runs.

    Attributes:
        concurrency: keys reconciled at once in this process.
        poll_seconds: how long an item that another process has queued may wait unseen.
        limit_seconds: a reconcile that takes longer hangs; it is broken off and tried again later.
        end_seconds: how long what is running may go on when the controller is stopped.
    """

    concurrency: int = 32
    poll_seconds: float = 1.0
    limit_seconds: float = 300.0
    end_seconds: float = 10.0
    backoff: Backoff = field(default_factory=Backoff)


class Controller:
    """Runs reconcilers until it is stopped."""

    def __init__(
        self,
        database: Database,
        queue: WorkQueue,
        reconcilers: Sequence[Reconciler],
        settings: ControllerSettings | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._queue = queue
        self._reconcilers = {reconciler.kind: reconciler for reconciler in reconcilers}
        self._settings = settings or ControllerSettings()
        self._clock = clock
        self._wake = asyncio.Event()
        self._running: dict[asyncio.Task[None], WorkItem] = {}
        self._finished: list[Finished] = []
        self._hints: set[tuple[str, str]] = set()
        database.listen(self._on_topics)

    async def run(self) -> None:
        """Claim and reconcile until cancelled; then let what is running come to its end."""
        await self._queue.release_all()
        renewal = asyncio.create_task(self._renew_leases(), name="leases")
        try:
            while True:
                await self._step()
        finally:
            renewal.cancel()
            if self._running:
                await asyncio.wait(self._running, timeout=self._settings.end_seconds)
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await self._queue.claim((), 0, finished=self._finished)
            await self._queue.release_all()

    def hint(self, kind: str, keys: Iterable[str]) -> None:
        """Something new can be seen of these; they are looked at soon. A hint may get lost with the process, or with its transaction."""
        self._hints.update((kind, key) for key in keys)
        self._wake.set()

    async def _step(self) -> None:
        self._wake.clear()
        wait_seconds = self._settings.poll_seconds
        try:
            free = self._settings.concurrency - len(self._running)
            items = await self._turn(free)
            if free > len(items):
                if items:
                    return  # there may be more by now
                wait_seconds = await self._seconds_until_due()
        except Exception:
            log.exception("The work queue can't be reached; trying again")
        try:
            async with asyncio.timeout(wait_seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _turn(self, free: int) -> list[WorkItem]:
        """Give back what is finished, and begin what is due."""
        finished, self._finished = self._finished, []
        hints, self._hints = self._hints, set()
        try:
            items = await self._queue.claim(self._reconcilers.keys(), free, finished=finished, hints=hints)
        except BaseException:
            self._finished = finished + self._finished
            self._hints |= hints
            raise
        for item in items:
            task = asyncio.create_task(self._process(item), name=f"{item.kind} {item.key}")
            self._running[task] = item
            task.add_done_callback(self._on_task_done)
        return items

    async def _seconds_until_due(self) -> float:
        due_at = await self._queue.next_due_at(self._reconcilers.keys())
        if due_at is None:
            return self._settings.poll_seconds
        # Never nothing: what is due and yet was not claimed is being claimed by another server.
        return min(self._settings.poll_seconds, max(_SHORTEST_WAIT_SECONDS, (due_at - self._clock()).total_seconds()))

    async def _process(self, item: WorkItem) -> None:
        again_after_seconds: float | None = None
        error: str | None = None
        try:
            async with asyncio.timeout(self._settings.limit_seconds):
                outcome = await self._reconcilers[item.kind].reconcile(item.key, Lease(item))
            if isinstance(outcome, Again):
                again_after_seconds = outcome.after_seconds
        except LeaseLost:
            log.info("Lost the lease on %s %s; its new holder goes on", item.kind, item.key)
            return
        except RetryLater as later:
            error = str(later)
            again_after_seconds = later.delay_seconds
            if again_after_seconds is None:
                again_after_seconds = self._settings.backoff.delay_seconds(item.attempts + 1)
            log.info("%s %s: %s; again in %.1f s", item.kind, item.key, error, again_after_seconds)
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}".replace("\x00", "\ufffd")
            again_after_seconds = self._settings.backoff.delay_seconds(item.attempts + 1)
            log.exception("%s %s failed; again in %.1f s", item.kind, item.key, again_after_seconds)
        self._finished.append(Finished(item, again_after_seconds, error))

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._queue.lease_seconds / 3)
            if not self._running:
                continue
            try:
                await self._queue.renew(list(self._running.values()))
            except Exception:
                log.exception("Leases can't be renewed")

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._wake.set()

    def _on_topics(self, topics: frozenset[str]) -> None:
        if not topics.isdisjoint(self._reconcilers):
            self._wake.set()
