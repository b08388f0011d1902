"""The control loop of workloads on a database and a fake backend, driven step by step: what is due is done, and nothing is waited for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from modelyard.compute.port import Capacity
from modelyard.control.reconciler import Again
from modelyard.control.tables import EventRow, WorkItemRow
from modelyard.control.work import Finished, Lease, LeaseLost, WorkQueue, enqueue
from modelyard.db.columns import Table
from modelyard.db.engine import Database
from modelyard.kit.backoff import Backoff
from modelyard.kit.errors import RetryLater
from modelyard.kit.ids import new_id
from modelyard.resources.routes.table import RouteRow
from modelyard.resources.workloads.admission import AdmissionSettings
from modelyard.resources.workloads.model import CommandSpec, Desired, LimitsSpec, Workload, WorkloadSpec
from modelyard.resources.workloads.observer import WorkloadObserver
from modelyard.resources.workloads.reconciler import Follow, WorkloadReconciler
from modelyard.resources.workloads.service import KIND, Workloads
from modelyard.resources.workloads.table import WorkloadRow
from modelyard.testing.clock import ShiftedClock
from modelyard.testing.compute import FakeCompute

OWNER_KIND = "test-owner"
_BACKOFF = Backoff()
_DRAIN_LIMIT = 500


async def make_tables(database: Database) -> None:
    """The tables of the control loop and of the system resources, without the migrations."""
    tables = [Table.metadata.tables[row.__tablename__] for row in (WorkItemRow, EventRow, WorkloadRow, RouteRow)]
    async with database.engine.begin() as connection:
        await connection.run_sync(Table.metadata.create_all, tables=tables)


def workload_spec(**fields: Any) -> WorkloadSpec:
    """A workload of one small command, with these fields changed."""
    values: dict[str, Any] = {
        "owner_kind": OWNER_KIND,
        "owner_id": "owner",
        "role": "training",
        "title": "training 'iris'",
        "limits": LimitsSpec(cpus=1.0, memory_bytes=2**30),
        "command": CommandSpec(argv=("{python}", "-m", "train")),
    }
    return WorkloadSpec(**(values | fields))


@asynccontextmanager
async def workload_loop(
    database_url: str, cpus: float, memory_gib: float, clock: ShiftedClock | None = None
) -> AsyncGenerator[WorkloadLoop]:
    """The loop on an empty database, on a machine of this size."""
    database, clock = Database(database_url), clock or ShiftedClock()
    await make_tables(database)
    capacity = Capacity(cpus=cpus, memory_bytes=int(memory_gib * 2**30))
    yield WorkloadLoop(database, FakeCompute(capacity, clock), clock)
    await database.close()


class WorkloadLoop:
    """One server's share of the loop. `drain` does all that is due, in the order of the queue, and comes back."""

    def __init__(
        self,
        database: Database,
        compute: FakeCompute,
        clock: ShiftedClock,
        *,
        owner: str = "server-a",
        admission: AdmissionSettings | None = None,
        followers: Mapping[str, Follow] | None = None,
    ) -> None:
        self.database = database
        self.compute = compute
        self.clock = clock
        self.queue = WorkQueue(database, owner, clock=clock)
        self.workloads = Workloads(database, compute, admission)
        self.reconciler = WorkloadReconciler(database, compute, _token, admission, clock, followers=followers)
        self.observer = WorkloadObserver(database, compute, self.workloads)

    async def add(self, workload_id: str | None = None, **fields: Any) -> str:
        """Ask for a workload; its id."""
        workload_id = workload_id or new_id()
        async with self.database.write() as session:
            await self.workloads.ensure(session, workload_id, "project", workload_spec(**fields), actor="test")
        return workload_id

    async def ask(self, workload_id: str, desired: Desired) -> None:
        """Ask for a stop or a deletion."""
        async with self.database.write() as session:
            await self.workloads.ask(session, workload_id, desired)

    async def hint(self, workload_id: str) -> None:
        """The backend says that something new can be seen."""
        async with self.database.write() as session:
            await enqueue(session, KIND, workload_id, is_hint=True)

    async def find(self, workload_id: str) -> Workload | None:
        """The workload as it is recorded now."""
        async with self.database.read() as session:
            return await self.workloads.get(session, workload_id)

    async def get(self, workload_id: str) -> Workload:
        """The workload, which must be there."""
        found = await self.find(workload_id)
        if found is None:
            raise LookupError(workload_id)
        return found

    async def drain(self) -> int:
        """Look at what lives and do what is due, until nothing is. How many reconciles that took; an error if they never end."""
        total_count = 0
        while True:
            with suppress(RetryLater):
                await self.observer.look(await self.workloads.live())
            count = await self._do_what_is_due()
            total_count += count
            if count == 0:
                return total_count
            if total_count > _DRAIN_LIMIT:
                raise RuntimeError(f"{total_count} reconciles, and still something is due")

    async def _do_what_is_due(self) -> int:
        count = 0
        while items := await self.queue.claim([KIND], 10):
            for item in items:
                await self.queue.claim((), 0, finished=[await self._reconcile(item.key, Lease(item))])
            count += len(items)
            if count > _DRAIN_LIMIT:
                raise RuntimeError(f"{count} reconciles, and still something is due")
        return count

    async def _reconcile(self, key: str, lease: Lease) -> Finished:
        try:
            outcome = await self.reconciler.reconcile(key, lease)
        except LeaseLost:
            return Finished(lease.item)
        except RetryLater as later:
            wait_seconds = later.delay_seconds or _BACKOFF.delay_seconds(lease.item.attempts + 1)
            return Finished(lease.item, wait_seconds, str(later))
        except Exception as problem:
            return Finished(lease.item, _BACKOFF.delay_seconds(lease.item.attempts + 1), repr(problem))
        return Finished(lease.item, outcome.after_seconds if isinstance(outcome, Again) else None)


async def _token(_workload: Workload) -> str:
    return "token"
