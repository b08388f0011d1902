"""Who waits for room, whom they wait for, and who makes way for them."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.compute.port import Capacity
from modelyard.control.work import enqueue
from modelyard.kit.clock import utc_now
from modelyard.resources.workloads import repository
from modelyard.resources.workloads.admission import AdmissionSettings, lacking
from modelyard.resources.workloads.model import Desired, Held
from modelyard.resources.workloads.service import KIND
from modelyard.resources.workloads.table import WorkloadRow


def wanted_by(row: WorkloadRow) -> Held:
    """What it holds while it is admitted."""
    return Held(cpus=row.held_cpus, memory_bytes=row.held_memory_bytes, gpus=row.held_gpus)


async def make_room(
    session: AsyncSession, wanted: Held, taken: Held, capacity: Capacity, settings: AdmissionSettings
) -> None:
    """Have as many spare workloads ended as it takes for this to fit; none if that would not do. Their end wakes who waits.

    The caller holds the lock on admission.
    """
    spares = await repository.spares(session)
    for row in spares:
        if row.desired != Desired.RUN.value:
            taken = _less(taken, wanted_by(row))  # on its way out already
    leaving: list[WorkloadRow] = []
    for row in spares:
        if lacking(wanted, taken, capacity, settings) is None:
            break
        if row.desired == Desired.RUN.value:
            taken = _less(taken, wanted_by(row))
            leaving.append(row)
    if lacking(wanted, taken, capacity, settings) is not None:
        return
    for row in leaving:
        row.desired = Desired.DELETE.value
        row.generation += 1
        row.updated_at = utc_now()
        await enqueue(session, KIND, row.id)


async def waiting_for(session: AsyncSession, phrase: str) -> str:
    """The sentence for what lacks, and who has it."""
    holders = [holder.name for holder in await repository.largest_holders(session, 3)]
    held_by = f"; in use by {', '.join(holders)}" if holders else ""
    return f"Waiting for {phrase}{held_by}."


async def wake_waiting(session: AsyncSession) -> None:
    """Something has changed about the room or the line: the first may be admitted, and others with it.

    Those behind it learn when they next ask whom they wait for by then: to tell all of them each time would be most of the work of a long line.
    """
    for workload_id in await repository.waiting_ids(session, 1):
        await enqueue(session, KIND, workload_id)


def behind(first: WorkloadRow) -> str:
    """What those say who stand in line behind the first."""
    return f"Waiting for its turn behind {first.name}."


def _less(taken: Held, given_back: Held) -> Held:
    return Held(
        cpus=taken.cpus - given_back.cpus,
        memory_bytes=taken.memory_bytes - given_back.memory_bytes,
        gpus=taken.gpus - given_back.gpus,
    )
