"""Use cases of workloads, for the resources that own them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.compute.port import (
    Capacity,
    Compute,
    Environment,
    HasCapacity,
    KeepsVolumes,
    LogChunk,
    MeasuresUse,
    Phase,
    Use,
)
from modelyard.control.transitions import born
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.resources.workloads import repository
from modelyard.resources.workloads.admission import AdmissionSettings, check_ever_fits, demand, lacking
from modelyard.resources.workloads.lifecycle import LIFECYCLE, WorkloadState
from modelyard.resources.workloads.model import (
    Desired,
    Held,
    InstanceSeen,
    Usage,
    Workload,
    WorkloadSpec,
    WorkloadStatus,
    instance_id,
)
from modelyard.resources.workloads.table import WorkloadRow

KIND = "workload"
VOLUME_KIND = "volume"
_BEYOND_ANY_END = 2**62
_STARTING_FOR = timedelta(minutes=1)
"""What has not started after so long may never do so, and nobody waits for that."""
_TAIL_BYTES = 64 * 1024
_TAIL_LINES = 20


class Workloads:
    """Asks for workloads and tells what is seen of them. Only the reconciler makes them true."""

    def __init__(self, database: Database, compute: Compute, admission: AdmissionSettings | None = None) -> None:
        self._database = database
        self._compute = compute
        self._admission = admission or AdmissionSettings()
        self._capacity: Capacity | None = None
        self._specs: dict[str, tuple[int, WorkloadSpec]] = {}
        self._statuses: dict[str, tuple[dict[str, Any], WorkloadStatus]] = {}

    async def check_ever_fits(self, cpus: float, memory_bytes: int, gpus: int, instances: int) -> None:
        """Raise `NeverFits` for what this platform could never run (the first three are for each instance)."""
        wanted = Held(cpus=cpus * instances, memory_bytes=memory_bytes * instances, gpus=gpus * instances)
        check_ever_fits(wanted, await self.capacity(), self._admission)

    async def capacity(self) -> Capacity:
        """What the backend has in all; backends that don't know their size count as endless."""
        if self._capacity is None:
            self._capacity = await read_capacity(self._compute)
        return self._capacity

    async def ensure(
        self, session: AsyncSession, workload_id: str, project_id: str, spec: WorkloadSpec, *, actor: str
    ) -> Workload:
        """The workload of this id; asked for if there is none. Part of the caller's transaction."""
        row = await repository.by_id(session, workload_id)
        if row is None:
            row = _new_row(workload_id, project_id, spec, actor)
            born(session, LIFECYCLE, row, actor=actor)
            session.add(row)
            await enqueue(session, KIND, workload_id)
        return workload_of(row)

    async def ask(self, session: AsyncSession, workload_id: str, desired: Desired) -> bool:
        """Ask for a stop or a deletion, as part of the caller's transaction. False when there is no such workload (any more)."""
        row = await repository.by_id(session, workload_id)
        if row is None:
            return False
        if row.desired != desired.value and row.desired != Desired.DELETE.value:
            row.desired = desired.value
            row.generation += 1
            row.updated_at = utc_now()
            await enqueue(session, KIND, workload_id)
        return True

    async def resize(self, session: AsyncSession, workload_id: str, instances: int) -> bool:
        """Want another number of instances of a workload that is kept up (`restart="always"`); whether that is news.

        Those with the highest numbers are asked to end, so the caller first leads requests away from them (`ready_addresses_of`). New
        ones are launched when there is room. Part of the caller's transaction.
        """
        row = await repository.by_id(session, workload_id)
        if row is None or row.desired != Desired.RUN.value or workload_of(row).spec.instances == instances:
            return False
        row.instances_count = instances
        row.generation += 1
        row.updated_at = utc_now()
        await enqueue(session, KIND, workload_id)
        return True

    async def tell(self, session: AsyncSession, workload_id: str, told: str) -> None:
        """Have its instances find this text (see `WorkloadSpec.told`); part of the caller's transaction."""
        row = await repository.held_by_id(session, workload_id)
        if row is not None and row.desired == Desired.RUN.value:
            _respecify(row, told=told)
            await enqueue(session, KIND, workload_id)

    async def give(self, session: AsyncSession, workload_id: str, *, role: str, title: str, told: str) -> bool:
        """Make a spare workload somebody's, as part of the caller's transaction; False if it is not ready, or no longer there to be given.

        It is given once: whoever else wants it, for use or to end it, waits for this transaction and then finds that it is no spare.
        """
        row = await repository.held_by_id(session, workload_id)
        if row is None or not row.is_spare or row.desired != Desired.RUN.value:
            return False
        if row.state != WorkloadState.RUNNING.value or not all(
            item.is_ready for item in workload_of(row).status.instances
        ):
            return False
        row.is_spare, row.role, row.name = False, role, title[:128]
        _respecify(row, is_spare=False, role=role, title=title, told=told)
        await enqueue(session, KIND, workload_id)
        return True

    async def has_room_for_spare(self, session: AsyncSession, spec: WorkloadSpec) -> bool:
        """Whether a spare workload like this would find room now, in nobody's way: nothing else is just starting, or waits for room."""
        if await repository.is_anything_starting(session, utc_now() - _STARTING_FOR):
            return False
        if await repository.first_waiting(session) is not None:
            return False
        held = await repository.held(session)
        return lacking(demand(spec), held, await self.capacity(), self._admission) is None

    async def get(self, session: AsyncSession, workload_id: str) -> Workload | None:
        """One workload."""
        row = await repository.by_id(session, workload_id)
        return None if row is None else workload_of(row)

    async def is_alive(self, workload_id: str) -> bool:
        """Whether there is such a workload and it is not over: what it was given to act with is good as long."""
        async with self._database.read() as session:
            state = await repository.state_of(session, workload_id)
        return state is not None and not LIFECYCLE.is_final(state)

    async def get_many(self, session: AsyncSession, ids: Collection[str]) -> Mapping[str, Workload]:
        """Several workloads by id."""
        return {row.id: workload_of(row) for row in await repository.by_ids(session, ids)}

    async def live(self) -> list[Workload]:
        """Those that have, or may have, something running. Asked often, so what has not changed is not read and checked again."""
        async with self._database.read() as session:
            rows = await repository.live(session)
            known = {row.id: spec for row in rows if (spec := self._known_spec(row)) is not None}
            new = await repository.specs(session, [row.id for row in rows if row.id not in known])
        known |= {workload_id: WorkloadSpec.model_validate(spec) for workload_id, spec in new.items()}
        rows = [row for row in rows if row.id in known]
        self._specs = {row.id: (row.generation, known[row.id]) for row in rows}
        self._statuses = {row.id: (row.status, self._status(row)) for row in rows}
        return [_workload(row, known[row.id], self._statuses[row.id][1]) for row in rows]

    async def with_output_to_ship(self) -> list[Workload]:
        """Those whose output goes to the log store and is not all there yet."""
        async with self._database.read() as session:
            return [workload_of(row) for row in await repository.with_output_to_ship(session)]

    async def mark_shipped(self, workload_id: str) -> None:
        """All output of a workload that has ended is in the log store."""
        async with self._database.write() as session:
            row = await repository.by_id(session, workload_id)
            if row is not None:
                row.has_output_to_ship = False

    async def read_instance(self, instance: str, offset: int, limit_bytes: int) -> LogChunk:
        """A piece of the output of one instance, by its id."""
        return await self._compute.read_logs(instance, offset, limit_bytes)

    async def measure(self, instance_ids: Sequence[str]) -> Sequence[Use]:
        """What instances use now; nothing where the backend can't tell."""
        return await self._compute.measure(instance_ids) if isinstance(self._compute, MeasuresUse) else []

    async def last_lines(self, workload: Workload) -> tuple[str, ...]:
        """The last lines of the instance that is to blame, for the answer that says why."""
        index = 0 if workload.failed is None else workload.failed.index
        end = await self.read_output(workload.id, index, _BEYOND_ANY_END, 1)
        begin = max(0, end.next_offset - _TAIL_BYTES)
        chunk = await self.read_output(workload.id, index, begin, _TAIL_BYTES)
        # Records of inferences (they begin with 0x1E) say nothing about an end.
        lines = [line for line in chunk.data.splitlines() if not line.startswith(b"\x1e")]
        return tuple(line.decode(errors="replace") for line in lines[-_TAIL_LINES:])

    async def read_output(self, workload_id: str, index: int, offset: int, limit_bytes: int) -> LogChunk:
        """A piece of the output of an instance's newest attempt. An instance that has none yet answers an empty piece."""
        return (await self.read_attempt(workload_id, index, None, offset, limit_bytes))[1]

    async def read_attempt(
        self, workload_id: str, index: int, attempt: int | None, offset: int, limit_bytes: int
    ) -> tuple[int, LogChunk]:
        """A piece of the output of an instance in one attempt (the newest for None), and which attempt that is.

        An attempt of which nothing is kept, or that never was, answers an empty piece at its end.
        """
        async with self._database.read() as session:
            row = await repository.by_id(session, workload_id)
        if row is None:
            return attempt or 0, LogChunk(offset, b"", offset, is_end=True)
        workload = workload_of(row)
        instance = next((item for item in workload.status.instances if item.index == index), None)
        if instance is None:
            is_over = workload.state in (WorkloadState.STOPPED, WorkloadState.FAILED)
            return attempt or 0, LogChunk(offset, b"", offset, is_end=is_over)
        chosen = instance.attempt if attempt is None else attempt
        return chosen, await self._compute.read_logs(instance_id(workload.id, index, chosen), offset, limit_bytes)

    async def usage(self, workload: Workload) -> Usage | None:
        """What it takes now; None while nothing of it runs."""
        seen = await self._compute.observe([item.id for item in workload.status.instances])
        running = [each for each in seen if each.phase is Phase.RUNNING]
        if not running:
            return None
        return Usage(
            memory_bytes=sum(each.memory_bytes or 0 for each in running),
            cpu_seconds=sum(each.cpu_seconds or 0.0 for each in running),
        )

    async def has_volume(self, volume_id: str) -> bool:
        """Whether the backend keeps a volume of this id."""
        return isinstance(self._compute, KeepsVolumes) and await self._compute.has_volume(volume_id)

    async def discard_volume(self, session: AsyncSession, volume_id: str) -> None:
        """Have a volume deleted with all that is in it, once no instance uses it; part of the caller's transaction."""
        await enqueue(session, VOLUME_KIND, volume_id)

    def _known_spec(self, row: WorkloadRow) -> WorkloadSpec | None:
        """The spec as it was read last, unless something may have changed about it since."""
        generation, spec = self._specs.get(row.id, (None, None))
        return spec if generation == row.generation else None

    def _status(self, row: WorkloadRow) -> WorkloadStatus:
        known = self._statuses.get(row.id)
        return known[1] if known is not None and known[0] == row.status else WorkloadStatus.model_validate(row.status)


async def read_capacity(compute: Compute) -> Capacity:
    """What a backend has in all."""
    if isinstance(compute, HasCapacity):
        return await compute.capacity()
    return Capacity(cpus=float("inf"), memory_bytes=2**62, gpus=2**16)


def workload_of(row: WorkloadRow) -> Workload:
    """The frozen value of a row."""
    return _workload(row, WorkloadSpec.model_validate(row.spec), WorkloadStatus.model_validate(row.status))


def _workload(row: WorkloadRow, spec: WorkloadSpec, status: WorkloadStatus) -> Workload:
    count = row.instances_count
    return Workload(
        id=row.id,
        project_id=row.project_id,
        spec=spec if count is None else spec.model_copy(update={"instances": count}),
        status=status,
        desired=Desired(row.desired),
        state=WorkloadState(row.state),
        reason=row.reason,
        message=row.message,
        created_at=row.created_at,
    )


def _respecify(row: WorkloadRow, **changes: object) -> None:
    row.spec = WorkloadSpec.model_validate(row.spec).model_copy(update=changes).model_dump(mode="json")
    row.generation += 1
    row.updated_at = utc_now()


def _new_row(workload_id: str, project_id: str, spec: WorkloadSpec, actor: str) -> WorkloadRow:
    now = utc_now()
    wanted = demand(spec)
    instances = tuple(
        InstanceSeen(id=instance_id(workload_id, index, 0), index=index) for index in range(spec.instances)
    )
    return WorkloadRow(
        id=workload_id,
        project_id=project_id,
        name=spec.title[:128],
        spec=spec.model_dump(mode="json"),
        status=WorkloadStatus(instances=instances).model_dump(mode="json"),
        tags=[],
        desired=Desired.RUN.value,
        state=LIFECYCLE.initial.value,
        created_by=actor,
        created_at=now,
        updated_at=now,
        owner_kind=spec.owner_kind,
        owner_id=spec.owner_id,
        role=spec.role,
        has_output_to_ship=spec.log is not None,
        is_spare=spec.is_spare,
        held_cpus=wanted.cpus,
        held_memory_bytes=wanted.memory_bytes,
        held_gpus=wanted.gpus,
    )


async def environments_needed(database: Database) -> set[str]:
    """Digests of the environments of all workloads that have not ended: also of those that wait for room."""
    async with database.read() as session:
        specs = await repository.not_ended(session)
    wanted = [WorkloadSpec.model_validate(spec).environment for spec in specs]
    return {Environment(**environment.model_dump()).digest for environment in wanted if environment is not None}
