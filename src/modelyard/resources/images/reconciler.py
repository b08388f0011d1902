"""Builds environments: one build workload each time one is asked for, and word to those who wait."""

from __future__ import annotations

import uuid

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.reconciler import Done, Outcome
from modelyard.control.transitions import CONTROLLER, move
from modelyard.control.work import Lease, enqueue
from modelyard.db.engine import Database
from modelyard.resources.images import repository
from modelyard.resources.images.lifecycle import LIFECYCLE, EnvironmentState
from modelyard.resources.images.service import KIND, PLATFORM_PROJECT
from modelyard.resources.images.table import EnvironmentRow
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Desired, EnvironmentSpec, LimitsSpec, Workload, WorkloadSpec
from modelyard.resources.workloads.service import Workloads

_IDS = uuid.UUID("2b7a6c52-9f0e-5f53-9a59-3c0f6b8f0f0c")
_BUILD_LIMITS = LimitsSpec(cpus=64.0, memory_bytes=2**36)  # a build is the platform's own work
_BUILD_TIMEOUT_SECONDS = 2 * 3600.0


class EnvironmentReconciler:
    """Reconciles environments."""

    kind = KIND

    def __init__(self, database: Database, workloads: Workloads) -> None:
        self._database = database
        self._workloads = workloads

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Bring one build a step further."""
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_digest(session, key)
            if row is None or row.state != EnvironmentState.BUILDING.value:
                return Done()
            workload_id = build_id(row.id, row.generation)
            workload = await self._workloads.ensure(
                session, workload_id, PLATFORM_PROJECT, _build_workload(row), actor=CONTROLLER
            )
            await self._follow(session, row, workload)
        return Done()

    async def _follow(self, session: AsyncSession, row: EnvironmentRow, workload: Workload) -> None:
        match workload.state:
            case WorkloadState.SUCCEEDED:
                changed = move(session, LIFECYCLE, row, EnvironmentState.READY)
                await self._workloads.ask(session, workload.id, Desired.DELETE)
            case WorkloadState.FAILED | WorkloadState.STOPPED:
                message = f"{row.name} could not be built: {workload.message}"
                changed = move(
                    session, LIFECYCLE, row, EnvironmentState.BUILD_FAILED, reason="BUILD_FAILED", message=message
                )
                await self._workloads.ask(session, workload.id, Desired.DELETE)
            case _:
                message = f"Building {row.name}: {_progress(workload)}"
                changed = row.message != message
                row.message = message  # progress is not history: no event for each line of it
        if changed:
            for waiter in await repository.waiters(session, row.id):
                await enqueue(session, waiter.kind, waiter.key)


def build_id(digest: str, generation: int) -> str:
    """The id of the workload of one build."""
    return str(uuid.uuid5(_IDS, f"{digest}:{generation}"))


def _build_workload(row: EnvironmentRow) -> WorkloadSpec:
    return WorkloadSpec(
        owner_kind=KIND,
        owner_id=row.id,
        role="build",
        title=f"the build of {row.name}",
        limits=_BUILD_LIMITS,
        environment=EnvironmentSpec.model_validate(row.spec),
        timeout_seconds=_BUILD_TIMEOUT_SECONDS,
    )


def _progress(workload: Workload) -> str:
    report = workload.report
    message = report.get("message")
    progress = report.get("progress")
    text = message if isinstance(message, str) and message else (workload.message or "starting")
    percent = f" ({progress:.0%})" if isinstance(progress, float) and 0 < progress < 1 else ""
    return f"{text[:500]}{percent}"
