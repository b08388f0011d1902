"""Queries on workloads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Select, func, inspect, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from modelyard.db.rows import row_of
from modelyard.resources.workloads.lifecycle import LIFECYCLE, WorkloadState
from modelyard.resources.workloads.model import Held
from modelyard.resources.workloads.table import WorkloadRow

_LIVE = (WorkloadState.STARTING.value, WorkloadState.RUNNING.value, WorkloadState.STOPPING.value)
_ADMISSION_LOCK = 0x6D6F64656C79  # any constant: names the advisory lock under which PostgreSQL admits


_WITHOUT_DOCUMENTS = defer(WorkloadRow.spec, raiseload=True), defer(WorkloadRow.status, raiseload=True)
"""Neither is read where only places in a line and sizes count: they are long."""


async def by_id(session: AsyncSession, workload_id: str) -> WorkloadRow | None:
    """One workload."""
    return await row_of(session, WorkloadRow, workload_id)


async def state_of(session: AsyncSession, workload_id: str) -> WorkloadState | None:
    """The state of one workload, without the rest of it; None for one that does not exist."""
    state = await session.scalar(select(WorkloadRow.state).where(WorkloadRow.id == workload_id))
    return None if state is None else WorkloadState(state)


async def desired_of(session: AsyncSession, workload_id: str) -> str | None:
    """What is wanted of one workload, without the rest of it; None for one that does not exist."""
    return await session.scalar(select(WorkloadRow.desired).where(WorkloadRow.id == workload_id))


async def held_by_id(session: AsyncSession, workload_id: str) -> WorkloadRow | None:
    """One workload as it is now; until the transaction ends nobody else gets it so, and nobody changes it."""
    return await row_of(session, WorkloadRow, workload_id, lock="wait")


async def spares(session: AsyncSession) -> Sequence[WorkloadRow]:
    """Those that hold room until somebody needs it, the oldest first, locked against changes until the transaction ends."""
    statement = select(WorkloadRow).where(WorkloadRow.is_admitted.is_(True), WorkloadRow.is_spare.is_(True))
    return (await session.scalars(statement.order_by(WorkloadRow.id).with_for_update())).all()


async def is_anything_starting(session: AsyncSession, since: datetime) -> bool:
    """Whether something that was asked for since then is on its way to run."""
    statement = select(WorkloadRow.id).where(
        WorkloadRow.state.in_((WorkloadState.PENDING.value, WorkloadState.STARTING.value)),
        WorkloadRow.desired == "run",
        WorkloadRow.created_at > since,
    )
    return await session.scalar(statement.limit(1)) is not None


async def by_ids(session: AsyncSession, ids: Collection[str]) -> Sequence[WorkloadRow]:
    """Several workloads."""
    return (await session.scalars(select(WorkloadRow).where(WorkloadRow.id.in_(ids)))).all()


async def live(session: AsyncSession) -> Sequence[WorkloadRow]:
    """Those that have, or may have, something running. Their specs are not read: they are long, and hardly ever change (`specs`)."""
    statement = select(WorkloadRow).where(WorkloadRow.state.in_(_LIVE)).options(defer(WorkloadRow.spec, raiseload=True))
    return (await session.scalars(statement)).all()


async def specs(session: AsyncSession, ids: Collection[str]) -> Mapping[str, dict[str, Any]]:
    """The specs of several workloads by id."""
    if not ids:
        return {}
    rows = await session.execute(select(WorkloadRow.id, WorkloadRow.spec).where(WorkloadRow.id.in_(ids)))
    return {row.id: row.spec for row in rows}


async def not_ended(session: AsyncSession) -> Sequence[dict[str, Any]]:
    """The specs of all that may still start something."""
    ended = [state.value for state in WorkloadState if LIFECYCLE.is_final(state)]
    return (await session.scalars(select(WorkloadRow.spec).where(WorkloadRow.state.not_in(ended)))).all()


async def with_output_to_ship(session: AsyncSession) -> Sequence[WorkloadRow]:
    """Those whose output is not all in the log store yet."""
    return (await session.scalars(select(WorkloadRow).where(WorkloadRow.has_output_to_ship.is_(True)))).all()


async def first_waiting(session: AsyncSession) -> WorkloadRow | None:
    """The workload that has waited for room the longest: the one that may be admitted next."""
    return await session.scalar(_line(1))


async def line(session: AsyncSession, limit: int) -> Sequence[WorkloadRow]:
    """Those that have waited for room the longest, locked against changes until the transaction ends."""
    return (await session.scalars(_line(limit, is_locked=True))).all()


async def load_documents(session: AsyncSession, row: WorkloadRow) -> None:
    """Read spec and status of a row that was read without them (`line`)."""
    if not {"spec", "status"}.isdisjoint(inspect(row).unloaded):
        await session.refresh(row, ("spec", "status"))


async def waiting_ids(session: AsyncSession, limit: int) -> Sequence[str]:
    """Those that have waited for room the longest, first come first."""
    return (await session.scalars(_ids_in_line(limit))).all()


async def lock_admission(session: AsyncSession) -> None:
    """Let one transaction at a time admit. SQLite's writers are one at a time anyway."""
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADMISSION_LOCK})


async def held(session: AsyncSession) -> Held:
    """What all admitted workloads hold together."""
    row = (
        await session.execute(
            select(
                func.coalesce(func.sum(WorkloadRow.held_cpus), 0.0),
                func.coalesce(func.sum(WorkloadRow.held_memory_bytes), 0),
                func.coalesce(func.sum(WorkloadRow.held_gpus), 0),
            ).where(WorkloadRow.is_admitted.is_(True))
        )
    ).one()
    return Held(cpus=float(row[0]), memory_bytes=int(row[1]), gpus=int(row[2]))


async def largest_holders(session: AsyncSession, limit: int) -> Sequence[WorkloadRow]:
    """The admitted workloads that hold the most memory."""
    statement = select(WorkloadRow).where(WorkloadRow.is_admitted.is_(True), WorkloadRow.held_memory_bytes > 0)
    statement = statement.order_by(WorkloadRow.held_memory_bytes.desc()).limit(limit)
    return (await session.scalars(statement.options(*_WITHOUT_DOCUMENTS))).all()


# Built once: that takes longer than running them, and each training asks several times.


@cache
def _line(limit: int, *, is_locked: bool = False) -> Select[WorkloadRow]:
    statement = _waiting().order_by(WorkloadRow.created_at, WorkloadRow.id).limit(limit)
    return statement.with_for_update() if is_locked else statement


@cache
def _ids_in_line(limit: int) -> Select[str]:
    return _line(limit).with_only_columns(WorkloadRow.id)


def _waiting() -> Select[WorkloadRow]:
    holds_something = or_(
        WorkloadRow.held_memory_bytes > 0,
        WorkloadRow.held_cpus > 0,
        WorkloadRow.held_gpus > 0,
    )
    waiting = select(WorkloadRow).where(
        WorkloadRow.state == WorkloadState.PENDING.value,
        WorkloadRow.desired == "run",
        WorkloadRow.is_spare.is_(False),
        holds_something,
    )
    return waiting.options(*_WITHOUT_DOCUMENTS)
