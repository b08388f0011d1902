"""Makes workloads true: admits, launches, stops and removes instances. The only place that tells compute to act."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.compute.port import Capacity, Compute, LaunchRefused, Observation, Phase
from modelyard.control.events import forget_events
from modelyard.control.reconciler import Again, Done, Outcome
from modelyard.control.transitions import move
from modelyard.control.work import Lease, enqueue, forget
from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import RetryLater
from modelyard.resources.workloads import probe, repository
from modelyard.resources.workloads.admission import (
    NOTHING,
    AdmissionSettings,
    add,
    check_ever_fits,
    demand,
    lacking,
)
from modelyard.resources.workloads.decision import decide, missing_indices, with_instances
from modelyard.resources.workloads.errors import NeverFits
from modelyard.resources.workloads.instances import FrontDoor, instance_of, peers_of
from modelyard.resources.workloads.lifecycle import LIFECYCLE, WorkloadState
from modelyard.resources.workloads.model import (
    NO_ROOM,
    Desired,
    ExitSeen,
    InstanceSeen,
    Retired,
    Workload,
    WorkloadStatus,
)
from modelyard.resources.workloads.room import behind, make_room, waiting_for, wake_waiting, wanted_by
from modelyard.resources.workloads.service import KIND, read_capacity, workload_of
from modelyard.resources.workloads.sight import Decision, addresses_of
from modelyard.resources.workloads.table import WorkloadRow

TokenSource = Callable[[Workload], Awaitable[str]]
"""Answers a fresh token of the project's system account for a workload."""

Follow = Callable[[AsyncSession, Workload], Awaitable[bool]]
"""Shows what is new of a workload at its owner, in the transaction that writes it; False where the owner has to look itself. Waits for no lock."""

_FIRST_POLL_SECONDS = 15.0
_QUEUED_POLL_SECONDS = 60.0
_LINE = 50
_SHIPPING_SECONDS = 30.0
_LAUNCH_AGAIN_SECONDS = 1.0
_ALIVE = (Phase.STARTING, Phase.RUNNING)


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
        *,
        door: FrontDoor | None = None,
        followers: Mapping[str, Follow] | None = None,
    ) -> None:
        self._database = database
        self._followers = followers or {}
        self._door = door or FrontDoor()
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
            return await self._remove(row, workload, lease)
        if LIFECYCLE.is_final(workload.state):
            return await self._settle(workload)
        if workload.state is WorkloadState.PENDING:
            admitted = await self._admit(workload, lease)
            if isinstance(admitted, Again):
                return admitted
            workload = admitted
            if LIFECYCLE.is_final(workload.state):
                return Done()
        shortage: str | None = None
        if missing_indices(workload):
            workload, shortage = await self._grow(workload, lease)
        observations, ready = await self._observe(workload)
        decision = decide(workload, observations, ready, self._clock())
        decision = await self._act(workload, decision, lease)
        decision = await self._tell(workload, decision)
        decision = await self._tidy(row, workload, decision)
        if shortage is not None:
            decision = _short_of(decision, shortage)
        if not _is_as_recorded(workload, decision):
            await self._apply(workload, decision, lease)
        return Done() if decision.again_after_seconds is None else Again(decision.again_after_seconds)

    async def _admit(self, workload: Workload, lease: Lease) -> Workload | Again:
        """Give it room if there is any; when to ask again while it has to wait."""
        if self._capacity is None:
            self._capacity = await read_capacity(self._compute)
        if workload.reason == NO_ROOM:  # most of those who wait stand in line: no write to find that out
            async with self._database.read() as session:
                first = await repository.first_waiting(session)
            if first is not None and _is_told(workload, first):
                return Again(_QUEUED_POLL_SECONDS)
        async with self._database.write() as session:
            await repository.lock_admission(session)
            await lease.guard(session)
            row = await repository.by_id(session, workload.id)
            if row is None:
                return Again(_FIRST_POLL_SECONDS)
            if row.desired != Desired.RUN.value and row.state == WorkloadState.PENDING.value:
                move(
                    session, LIFECYCLE, row, WorkloadState.STOPPED, reason="STOPPED", message="Stopped before it began."
                )
                await wake_waiting(session)
                await self._tell_owner(session, row)
                return workload_of(row)
            if row.is_spare and row.state == WorkloadState.PENDING.value:
                return await self._admit_spare(session, row, self._capacity)
            return await self._admit_row(session, row, self._capacity)

    async def _admit_spare(self, session: AsyncSession, row: WorkloadRow, capacity: Capacity) -> Workload:
        """A spare stands in nobody's way: it is admitted at once or not at all."""
        wanted = wanted_by(row)
        phrase = lacking(wanted, await repository.held(session), capacity, self._admission)
        if phrase is None and await repository.first_waiting(session) is None:
            row.is_admitted = True
            move(session, LIFECYCLE, row, WorkloadState.STARTING)
        else:
            message = "There is no room for a spare one now."
            move(session, LIFECYCLE, row, WorkloadState.STOPPED, reason=NO_ROOM, message=message)
        return workload_of(row)

    async def _admit_row(self, session: AsyncSession, row: WorkloadRow, capacity: Capacity) -> Workload | Again:
        obstacle: str | None = None
        if row.state == WorkloadState.PENDING.value and wanted_by(row) == NOTHING:
            move(session, LIFECYCLE, row, WorkloadState.STARTING)
        first = await repository.first_waiting(session)
        # Behind one that was found not to fit nobody is admitted; that one is woken by all that gives room.
        if row.state == WorkloadState.PENDING.value and not (first and first.id != row.id and first.reason == NO_ROOM):
            obstacle = await self._walk_the_line(session, row, capacity)
            first = await repository.first_waiting(session)
        if row.state != WorkloadState.PENDING.value:  # maybe since another one walked the line
            return workload_of(row)
        is_first = first is None or first.id == row.id
        message = obstacle if is_first or first is None else behind(first)
        if move(session, LIFECYCLE, row, WorkloadState.PENDING, reason=NO_ROOM, message=message):
            await self._tell_owner(session, row)
        return Again(_FIRST_POLL_SECONDS if is_first else _QUEUED_POLL_SECONDS)

    async def _walk_the_line(self, session: AsyncSession, own: WorkloadRow, capacity: Capacity) -> str | None:
        """Admit all who fit, from the first in line on; what the first who does not fit waits for.

        Who asks does this for everybody: nobody moves up one at a time. The lock on admission is what allows it to write about others.
        """
        taken = await repository.held(session)
        moved: list[WorkloadRow] = []
        obstacle: str | None = None
        for row in await repository.line(session, _LINE):
            wanted = wanted_by(row)
            try:
                check_ever_fits(wanted, capacity, self._admission)
            except NeverFits as never:  # the machine has become smaller; all behind it would wait for ever
                move(
                    session, LIFECYCLE, row, WorkloadState.FAILED, reason="NEVER_FITS", message=never.faults[0].message
                )
                moved.append(row)
                continue
            phrase = lacking(wanted, taken, capacity, self._admission)
            if phrase is not None:
                await make_room(session, wanted, taken, capacity, self._admission)
                obstacle = await waiting_for(session, phrase)
                break
            row.is_admitted = True
            move(session, LIFECYCLE, row, WorkloadState.STARTING)
            moved.append(row)
            taken = add(taken, wanted)
        for row in sorted(moved, key=lambda row: row.id):
            await repository.load_documents(session, row)
            await self._tell_owner(session, row)
            if row is not own:
                await enqueue(session, KIND, row.id)
        if moved:
            await wake_waiting(session)
        return obstacle

    async def _grow(self, workload: Workload, lease: Lease) -> tuple[Workload, str | None]:
        """Add the instances that it lacks, as many as there is room for; and what the others wait for.

        They don't stand in line with those who have not begun: who answers requests takes what is free, or goes on with what it has.
        """
        capacity = self._capacity = self._capacity or await read_capacity(self._compute)
        async with self._database.write() as session:
            await repository.lock_admission(session)
            await lease.guard(session)
            row = await repository.by_id(session, workload.id)
            if row is None or not row.is_admitted:
                return workload, None
            workload = workload_of(row)
            one, added, phrase = demand(workload.spec.model_copy(update={"instances": 1})), list[int](), None
            taken = await repository.held(session)
            for index in missing_indices(workload):
                phrase = lacking(one, taken, capacity, self._admission)
                if phrase is not None:
                    await make_room(session, one, taken, capacity, self._admission)
                    break
                added.append(index)
                taken = add(taken, one)
            status = with_instances(workload, added)
            row.status = status.model_dump(mode="json")
            _hold(row, workload, len(status.instances))
            shortage = None if phrase is None else await waiting_for(session, phrase)
        return workload.model_copy(update={"status": status}), shortage

    async def _observe(self, workload: Workload) -> tuple[Mapping[str, Observation], Mapping[str, bool]]:
        ids = [item.id for item in workload.status.instances]
        observations = {seen.id: seen for seen in await self._compute.observe(ids)}
        return observations, await probe_ready(workload, list(observations.values()))

    async def _act(self, workload: Workload, decision: Decision, lease: Lease) -> Decision:
        """Carry out launches and stops; both are idempotent, so doing them again after a crash is fine."""
        for stopped_id in decision.stop:
            await self._compute.stop(stopped_id, insist_after_seconds=decision.insist_after_seconds)
        for item in decision.status.instances if decision.introduce else ():
            await self._compute.introduce(item.id, peers_of(decision.status.instances))
        if not decision.launch or not await self._is_still_wanted(workload, lease):
            return decision
        token = await self._token_source(workload)
        launched = {item.index: item for item in decision.status.instances}
        obstacle: str | None = None
        for index in decision.launch:
            try:
                launched[index] = await self._launch(workload, launched[index], token)
            except RetryLater as later:
                if len(launched) == 1:
                    raise
                obstacle = str(later)
                break
        again_after_seconds = decision.again_after_seconds
        if obstacle is not None:
            again_after_seconds = _LAUNCH_AGAIN_SECONDS
        elif any(launched[index].exit is not None for index in decision.launch):
            again_after_seconds = 0.0  # what was refused is worth a second look at once
        status = decision.status.model_copy(
            update={
                "instances": tuple(launched.values()),
                "obstacle": obstacle,
                "obstacle_since": None if obstacle is None else decision.status.obstacle_since or self._clock(),
            }
        )
        return replace(decision, status=status, launch=(), stop=(), again_after_seconds=again_after_seconds)

    async def _launch(self, workload: Workload, item: InstanceSeen, token: str) -> InstanceSeen:
        """Start one instance; how it is seen then. Raises `RetryLater`."""
        try:
            await self._compute.launch(instance_of(workload, item, token, self._door))
        except LaunchRefused as refusal:
            refused = ExitSeen(cause="LAUNCH_FAILED", message=str(refusal))
            return item.model_copy(update={"is_launched": True, "phase": Phase.EXITED.value, "exit": refused})
        # What it was launched with may be of an earlier try: it is told once more when it runs.
        return item.model_copy(update={"is_launched": True, "phase": Phase.STARTING.value, "told": None})

    async def _tell(self, workload: Workload, decision: Decision) -> Decision:
        """Let instances that run know what has been found out, or has changed, since their launch."""
        told = workload.spec.told
        late = [item for item in decision.status.instances if item.phase == Phase.RUNNING and item.told != told]
        if told is None or not late:
            return decision
        for item in late:
            await self._compute.tell(item.id, workload.spec.role, workload.spec.title, told)
        instances = tuple(
            item.model_copy(update={"told": told}) if item in late else item for item in decision.status.instances
        )
        return replace(decision, status=decision.status.model_copy(update={"instances": instances}))

    async def _is_still_wanted(self, workload: Workload, lease: Lease) -> bool:
        """A last look before something is started that nobody would look after. Raises `LeaseLost`."""
        async with self._database.read() as session:
            await lease.check(session)
            return await repository.desired_of(session, workload.id) == workload.desired.value

    async def _tidy(self, row: WorkloadRow, workload: Workload, decision: Decision) -> Decision:
        """Remove what former attempts have left, once their output had time to come to the log store.

        What is tried again after a failure has few attempts, and people ask why they failed: all output is kept until the workload is removed.
        """
        if workload.spec.failure_restarts:
            return decision
        now = self._clock()
        kept: list[Retired] = []
        waits = [] if decision.again_after_seconds is None else [decision.again_after_seconds]
        for item in decision.status.retired:
            wait_seconds = (
                _SHIPPING_SECONDS - (now - item.retired_at).total_seconds() if row.has_output_to_ship else 0.0
            )
            if wait_seconds <= 0:
                try:
                    await self._compute.remove(item.id)
                    continue
                except RetryLater:
                    wait_seconds = _SHIPPING_SECONDS
            kept.append(item)
            waits.append(wait_seconds)
        status = decision.status.model_copy(update={"retired": tuple(kept)})
        return replace(decision, status=status, again_after_seconds=min(waits, default=None))

    async def _apply(self, workload: Workload, decision: Decision, lease: Lease) -> None:
        is_leaving = LIFECYCLE.is_final(decision.state) or decision.state is WorkloadState.PENDING
        status = decision.status.model_dump(mode="json")
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_id(session, workload.id)
            if row is None:
                return
            has_news = _shown(workload.status) != _shown(decision.status)
            row.status = status
            has_moved = move(session, LIFECYCLE, row, decision.state, reason=decision.reason, message=decision.message)
            if is_leaving and row.is_admitted:
                row.is_admitted = False
                await wake_waiting(session)
            elif row.instances_count is not None and _hold(row, workload, len(decision.status.instances)):
                await wake_waiting(session)
            if decision.state is WorkloadState.PENDING:
                await enqueue(session, KIND, row.id)
            if has_moved or has_news:
                await self._tell_owner(session, row)

    async def _tell_owner(self, session: AsyncSession, row: WorkloadRow) -> None:
        """Most owners have nothing to do but show it, so that they need no turn of their own."""
        follow = self._followers.get(row.owner_kind)
        if follow is None or not await follow(session, workload_of(row)):
            await enqueue(session, row.owner_kind, row.owner_id, is_hint=True)

    async def _settle(self, workload: Workload) -> Outcome:
        """Nothing of a workload that is over may run: a launch may have come late, after its sender had lost the lease."""
        observations = await self._compute.observe(workload.status.instance_ids)
        running = [seen.id for seen in observations if seen.phase in _ALIVE]
        for running_id in running:
            await self._compute.stop(running_id)
        return Again(workload.spec.grace_seconds) if running else Done()

    async def _remove(self, row: WorkloadRow, workload: Workload, lease: Lease) -> Outcome:
        """Stop and remove all instances of all attempts, then forget the workload."""
        ids = workload.status.instance_ids
        asked_seconds = (self._clock() - row.updated_at).total_seconds()
        running = [seen.id for seen in await self._compute.observe(ids) if seen.phase in _ALIVE]
        for running_id in running:
            await self._compute.stop(running_id)
        if running:  # the end of each is hinted at by the backend; this is for a hint that got lost
            return Again(min(5.0, max(0.25, asked_seconds / 4)))
        if LIFECYCLE.is_final(workload.state) and row.has_output_to_ship and asked_seconds < _SHIPPING_SECONDS:
            return Again(0.5)  # it has ended as it should: its last lines are still to come to the log store
        for instance in ids:
            await self._compute.remove(instance)
        async with self._database.write() as session:
            await lease.guard(session)
            current = await repository.by_id(session, workload.id)
            if current is not None:
                await session.delete(current)
                await session.flush()
                await wake_waiting(session)
                await enqueue(session, current.owner_kind, current.owner_id, is_hint=True)
            await forget_events(session, LIFECYCLE.name, workload.id)
            await forget(session, KIND, workload.id)
        return Done()


async def probe_ready(workload: Workload, observations: Sequence[Observation]) -> Mapping[str, bool]:
    """Which instances are ready for requests. Those that serve nothing are ready when they run."""
    path = workload.spec.ready_path

    async def _probe(seen: Observation) -> bool:
        if seen.phase is not Phase.RUNNING:
            return False
        address, _ = addresses_of(seen)
        if path is None or address is None:
            return True
        return await probe.is_ready(address, path)

    answers = await asyncio.gather(*(_probe(seen) for seen in observations))
    return {seen.id: answer for seen, answer in zip(observations, answers, strict=True)}


def _hold(row: WorkloadRow, workload: Workload, count: int) -> bool:
    """Write down what so many instances hold; whether it is less than before."""
    wanted = demand(workload.spec.model_copy(update={"instances": count}))
    is_less = wanted.memory_bytes < row.held_memory_bytes
    row.held_cpus, row.held_memory_bytes, row.held_gpus = wanted.cpus, wanted.memory_bytes, wanted.gpus
    return is_less


def _short_of(decision: Decision, shortage: str) -> Decision:
    """The decision of a workload that waits for room for more instances."""
    if decision.state not in (WorkloadState.STARTING, WorkloadState.RUNNING):
        return decision
    again_after_seconds = min(_FIRST_POLL_SECONDS, decision.again_after_seconds or _FIRST_POLL_SECONDS)
    return replace(decision, reason=NO_ROOM, message=shortage, again_after_seconds=again_after_seconds)


def _is_as_recorded(workload: Workload, decision: Decision) -> bool:
    """Whether there is nothing to write down: many hints tell what is known."""
    return (decision.state, decision.reason, decision.message, decision.status) == (
        workload.state,
        workload.reason,
        workload.message,
        workload.status,
    )


def _shown(status: WorkloadStatus) -> WorkloadStatus:
    """What an owner can see of it: that an instance was launched is no news until it has started."""
    unseen = {"is_launched": False, "phase": "", "told": None, "missed_probes": 0, "silent_since": None}
    return status.model_copy(
        update={"instances": tuple(item.model_copy(update=unseen) for item in status.instances), "retired": ()}
    )


def _is_told(workload: Workload, first: WorkloadRow) -> bool:
    return workload.desired is Desired.RUN and first.id != workload.id and workload.message == behind(first)
