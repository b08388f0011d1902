"""Makes workloads true: admits, launches, stops and removes instances. The only place that tells compute to act."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.compute.port import (
    Build,
    Capacity,
    Command,
    Compute,
    Environment,
    Instance,
    LaunchRefused,
    Limits,
    Mount,
    Observation,
    Phase,
)
from modelyard.control.reconciler import Again, Done, Outcome
from modelyard.control.transitions import move
from modelyard.control.work import Lease, enqueue, forget
from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.resources.workloads import probe, repository
from modelyard.resources.workloads.admission import AdmissionSettings, lacking
from modelyard.resources.workloads.decision import Decision, decide
from modelyard.resources.workloads.lifecycle import LIFECYCLE, WorkloadState
from modelyard.resources.workloads.model import (
    INDEX,
    TOKEN,
    Desired,
    ExitSeen,
    Held,
    InstanceSeen,
    Workload,
    WorkloadStatus,
)
from modelyard.resources.workloads.service import KIND, read_capacity, workload_of
from modelyard.resources.workloads.table import WorkloadRow

TokenSource = Callable[[Workload], Awaitable[str]]
"""Answers a fresh token of the project's system account for a workload."""

_WAITING_POLL_SECONDS = 15.0


class WorkloadReconciler:
    """Reconciles workloads."""

    kind = KIND

    def __init__(
        self,
        database: Database,
        compute: Compute,
        token_source: TokenSource,
        admission: AdmissionSettings | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._compute = compute
        self._token_source = token_source
        self._admission = admission or AdmissionSettings()
        self._clock = clock
        self._capacity: Capacity | None = None

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Bring one workload a step further."""
        async with self._database.read() as session:
            row = await repository.by_id(session, key)
        if row is None:
            return Done()
        workload = workload_of(row)
        if workload.desired is Desired.DELETE:
            return await self._remove(workload, lease)
        if LIFECYCLE.is_final(workload.state):
            return Done()
        if workload.state is WorkloadState.PENDING:
            admitted = await self._admit(workload, lease)
            if admitted is None:
                return Again(_WAITING_POLL_SECONDS)
            workload = admitted
            if LIFECYCLE.is_final(workload.state):
                return Done()
        observations, ready = await self._observe(workload)
        decision = decide(workload, observations, ready, self._clock())
        decision = await self._act(workload, decision)
        await self._apply(workload, decision, lease)
        return Done() if decision.again_after_seconds is None else Again(decision.again_after_seconds)

    async def _admit(self, workload: Workload, lease: Lease) -> Workload | None:
        """Give it room if there is any; None while it has to wait."""
        if self._capacity is None:
            self._capacity = await read_capacity(self._compute)
        async with self._database.write() as session:
            await repository.lock_admission(session)
            await lease.guard(session)
            row = await repository.by_id(session, workload.id)
            if row is None:
                return None
            if row.desired != Desired.RUN.value:
                move(
                    session, LIFECYCLE, row, WorkloadState.STOPPED, reason="STOPPED", message="Stopped before it began."
                )
                await _wake_owner(session, row)
                return workload_of(row)
            wanted = Held(cpus=row.held_cpus, memory_bytes=row.held_memory_bytes, gpus=row.held_gpus)
            obstacle = await self._obstacle(session, row, wanted, self._capacity)
            if obstacle is not None:
                if move(session, LIFECYCLE, row, WorkloadState.PENDING, reason="WAITING_FOR_ROOM", message=obstacle):
                    await _wake_owner(session, row)
                return None
            row.is_admitted = True
            move(session, LIFECYCLE, row, WorkloadState.STARTING)
            return workload_of(row)

    async def _obstacle(self, session: AsyncSession, row: WorkloadRow, wanted: Held, capacity: Capacity) -> str | None:
        if wanted.memory_bytes == 0:
            return None
        first = await repository.first_waiting_before(session, row)
        if first is not None:
            return f"Waiting for its turn behind {first.name}."
        phrase = lacking(wanted, await repository.held(session), capacity, self._admission)
        if phrase is None:
            return None
        holders = [holder.name for holder in await repository.largest_holders(session, 3) if holder.held_memory_bytes]
        held_by = f"; in use by {', '.join(holders)}" if holders else ""
        return f"Waiting for {phrase}{held_by}."

    async def _observe(self, workload: Workload) -> tuple[Mapping[str, Observation], Mapping[str, bool]]:
        ids = [item.id for item in workload.status.instances]
        observations = {seen.id: seen for seen in await self._compute.observe(ids)}
        return observations, await probe_ready(workload, list(observations.values()))

    async def _act(self, workload: Workload, decision: Decision) -> Decision:
        """Carry out launches and stops; both are idempotent, so doing them again after a crash is fine."""
        for stopped_id in decision.stop:
            await self._compute.stop(stopped_id)
        if not decision.launch:
            return decision
        token = await self._token_source(workload)
        launched = {item.index: item for item in decision.status.instances}
        for index in decision.launch:
            item = launched[index]
            try:
                await self._compute.launch(_instance(workload, item, token))
            except LaunchRefused as refusal:
                launched[index] = item.model_copy(
                    update={
                        "is_launched": True,
                        "phase": Phase.EXITED.value,
                        "exit": ExitSeen(cause="LAUNCH_FAILED", message=str(refusal)),
                    }
                )
                continue
            launched[index] = item.model_copy(update={"is_launched": True, "phase": Phase.STARTING.value})
        status = WorkloadStatus(attempt=decision.status.attempt, instances=tuple(launched.values()))
        # What was just launched is worth a second look at once: it may have been refused, or run already.
        return Decision(
            decision.state,
            status,
            decision.reason,
            decision.message,
            again_after_seconds=0.0 if any(item.exit for item in launched.values()) else decision.again_after_seconds,
        )

    async def _apply(self, workload: Workload, decision: Decision, lease: Lease) -> None:
        is_over = LIFECYCLE.is_final(decision.state)
        status = decision.status.model_dump(mode="json")
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_id(session, workload.id)
            if row is None:
                return
            has_changed = row.status != status
            row.status = status
            has_moved = move(session, LIFECYCLE, row, decision.state, reason=decision.reason, message=decision.message)
            if (is_over or decision.state is WorkloadState.PENDING) and row.is_admitted:
                row.is_admitted = False
                for waiting_id in await repository.pending_ids(session):
                    await enqueue(session, KIND, waiting_id)
            if has_moved or has_changed:
                await _wake_owner(session, row)
        superseded = _superseded(workload, decision)
        for stale_id in superseded:
            await self._compute.remove(stale_id)

    async def _remove(self, workload: Workload, lease: Lease) -> Outcome:
        """Stop and remove all instances of all attempts, then forget the workload."""
        ids = [item.id for item in workload.status.instances]
        observations = await self._compute.observe(ids)
        running = [seen.id for seen in observations if seen.phase in (Phase.STARTING, Phase.RUNNING)]
        for running_id in running:
            await self._compute.stop(running_id)
        if running:
            return Again(0.5)  # the end of each is hinted at by the backend; this is for a hint that got lost
        for instance in ids:
            await self._compute.remove(instance)
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_id(session, workload.id)
            if row is not None:
                if row.is_admitted:
                    for waiting_id in await repository.pending_ids(session):
                        await enqueue(session, KIND, waiting_id)
                await _wake_owner(session, row)
                await session.delete(row)
            await forget(session, KIND, workload.id)
        return Done()


async def probe_ready(workload: Workload, observations: Sequence[Observation]) -> Mapping[str, bool]:
    """Which instances are ready for requests. Those that serve nothing are ready when they run."""
    path = workload.spec.ready_path

    async def _probe(seen: Observation) -> bool:
        if seen.phase is not Phase.RUNNING:
            return False
        address = next(iter(seen.sockets.values()), None)
        if path is None or address is None:
            return True
        return await probe.is_ready(address, path)

    answers = await asyncio.gather(*(_probe(seen) for seen in observations))
    return {seen.id: answer for seen, answer in zip(observations, answers, strict=True)}


async def _wake_owner(session: AsyncSession, row: WorkloadRow) -> None:
    await enqueue(session, row.owner_kind, row.owner_id)


def _superseded(workload: Workload, decision: Decision) -> list[str]:
    """Instances of former attempts that nothing points to any more."""
    kept = {item.id for item in decision.status.instances}
    return [item.id for item in workload.status.instances if item.id not in kept and item.is_launched]


def _instance(workload: Workload, item: InstanceSeen, token: str) -> Instance:
    spec = workload.spec
    environment = None
    if spec.environment is not None:
        environment = Environment(
            spec.environment.name, spec.environment.python, spec.environment.requirements, spec.environment.core_type
        )
    task: Command | Build = Build()
    if spec.command is not None:
        fill = _filler({TOKEN: token, INDEX: str(item.index)})
        task = Command(
            argv=tuple(fill(argument) for argument in spec.command.argv),
            env={name: fill(value) for name, value in spec.command.env.items()},
            files={name: fill(text) for name, text in spec.command.files.items()},
        )
    return Instance(
        id=item.id,
        workload_id=workload.id,
        index=item.index,
        attempt=item.attempt,
        project_id=workload.project_id,
        role=spec.role,
        task=task,
        limits=Limits(**spec.limits.model_dump()),
        environment=environment,
        mounts=tuple(Mount(mount.source, mount.target, mount.read_only) for mount in spec.mounts),
        sockets=(spec.socket,) if spec.socket else (),
        grace_seconds=spec.grace_seconds,
        timeout_seconds=spec.timeout_seconds,
    )


def _filler(values: Mapping[str, str]) -> Callable[[str], str]:
    def _fill(text: str) -> str:
        for name, value in values.items():
            text = text.replace(name, value)
        return text

    return _fill
