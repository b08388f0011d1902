"""Takes notebooks that are kept ready, and notes what is created so that the right ones are."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.turns import take_turn
from modelyard.control.work import enqueue
from modelyard.kit.clock import Clock
from modelyard.resources.notebooks import repository
from modelyard.resources.notebooks.instances import KIND as NOTEBOOK_ROLE
from modelyard.resources.notebooks.instances import title_of, told_of
from modelyard.resources.notebooks.model import NotebookSpec, SpareSettings
from modelyard.resources.notebooks.table import ShapeRow
from modelyard.resources.workloads.service import Workloads

KIND = "notebook-spares"
POOL = "all"
"""The only key of that kind."""
_CALM_SECONDS = 3.0


class Taken(NamedTuple):
    """A notebook that was ready: its id, and its workload's."""

    id: str
    run_id: str


class Spares:
    """The side of the pool that creations see. Everything is part of the caller's transaction."""

    def __init__(self, workloads: Workloads, settings: SpareSettings, clock: Clock) -> None:
        self._workloads = workloads
        self._settings = settings
        self._clock = clock

    async def take(self, session: AsyncSession, project_id: str, name: str, spec: NotebookSpec) -> Taken | None:
        """One that is ready and fits, for a notebook of this name. Nobody else gets it, whatever server they ask.

        What was asked for is remembered: one like it is kept ready for the next.
        """
        if self._settings.count == 0 or spec.mounts:
            return None
        await self._note(session, project_id, spec)
        for row in await repository.free_spares(session, project_id, spec.shape):
            run_id = NotebookSpec.model_validate(row.spec).run_id
            told = told_of(spec, self._clock())
            if await self._workloads.give(session, run_id, role=NOTEBOOK_ROLE, title=title_of(name), told=told):
                await session.delete(row)
                return Taken(row.id, run_id)
        return None

    async def _note(self, session: AsyncSession, project_id: str, spec: NotebookSpec) -> None:
        now = self._clock()
        await take_turn(session, "notebook-shape", project_id, spec.shape)
        row = await repository.shape(session, project_id, spec.shape)
        if row is None:
            content = spec.model_dump(mode="json")
            session.add(ShapeRow(project_id=project_id, shape=spec.shape, spec=content, used_at=now))
        else:
            row.used_at = now
        # Later: the notebook that is created now has the machine first.
        await enqueue(session, KIND, POOL, at=now + timedelta(seconds=_CALM_SECONDS))
