"""Keeps notebooks ready: starts them ahead of those who will create them, and ends those that are no longer wanted.

One item for all of them. What should be there follows from what was created lately; each spare is as the notebook will be that takes it, down to
its id, storage and account, so that nothing has to change hands but a row, and nobody else can ever have used it. They yield to whatever
else needs their room (`workloads`), and are started when nothing else is.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from modelyard.control.reconciler import Again, Done, Outcome
from modelyard.control.transitions import CONTROLLER
from modelyard.control.work import Lease
from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.ids import new_id
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.lifecycle import EnvironmentState
from modelyard.resources.images.service import Images, environment_spec
from modelyard.resources.notebooks import repository
from modelyard.resources.notebooks.instances import NotebookSite, notebook_workload
from modelyard.resources.notebooks.model import NotebookSpec, SpareSettings
from modelyard.resources.notebooks.pool import ShapeKey, compare
from modelyard.resources.notebooks.spares import KIND, POOL
from modelyard.resources.notebooks.table import ShapeRow, SpareRow
from modelyard.resources.projects.service import Projects
from modelyard.resources.workloads.lifecycle import LIFECYCLE as WORKLOAD_LIFECYCLE
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Desired, Workload, WorkloadSpec
from modelyard.resources.workloads.service import Workloads

__all__ = ["POOL", "SPARES_KIND", "SpareReconciler"]

log = logging.getLogger(__name__)

SPARES_KIND = KIND
_LEAVING_SECONDS = 0.5
_BUSY_SECONDS = 2.0
_CALM_SECONDS = 60.0
_READY_SECONDS = 300.0
"""One that is not ready after so long is made anew. One that has failed takes its place as long: it would only be tried over and over."""


class SpareReconciler:
    """Reconciles the stock of notebooks that are kept ready."""

    kind = KIND

    def __init__(
        self,
        database: Database,
        projects: Projects,
        images: Images,
        flavors: Flavors,
        workloads: Workloads,
        site: NotebookSite,
        settings: SpareSettings,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._projects = projects
        self._images = images
        self._flavors = flavors
        self._workloads = workloads
        self._site = site
        self._settings = settings
        self._clock = clock

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Bring the stock a step further."""
        del key  # there is only one
        async with self._database.read() as session:
            used = await repository.shapes(session)
            spares = await repository.spares(session)
            ids = [NotebookSpec.model_validate(spare.spec).run_id for spare in spares]
            workloads = await self._workloads.get_many(session, ids)
        running = {spare.id: workloads.get(run_id) for spare, run_id in zip(spares, ids, strict=True)}
        since = self._clock() - timedelta(hours=self._settings.hours)
        shapes = {ShapeKey(row.project_id, row.shape): row for row in used if row.used_at > since}
        usable: dict[str, ShapeKey] = {}
        for spare in spares:
            if not spare.is_leaving and await self._is_usable(spare, running[spare.id]):
                usable[spare.id] = ShapeKey(spare.project_id, spare.shape)
        change = compare(list(shapes), self._settings.count, usable)
        for spare in spares:
            if spare.is_leaving or spare.id not in usable or spare.id in change.surplus:
                await self._end(spare, running[spare.id], lease)
        is_content = all([await self._make(shapes[key], lease) for key in change.missing])
        if len(shapes) < len(used):
            async with self._database.write() as session:
                await lease.guard(session)
                await repository.forget_shapes(session, since)
        return self._next(is_content, len(spares) > len(usable) - len(change.surplus), bool(shapes or spares))

    def _next(self, is_content: bool, is_any_leaving: bool, is_any: bool) -> Outcome:
        if is_any_leaving:
            return Again(_LEAVING_SECONDS)
        if not is_content:
            return Again(_BUSY_SECONDS)
        return Again(_CALM_SECONDS) if is_any else Done()

    async def _is_usable(self, spare: SpareRow, workload: Workload | None) -> bool:
        """Whether it is, will soon be, or should have been what a notebook that is created now would be."""
        if workload is None or workload.desired is not Desired.RUN:
            return False
        if WORKLOAD_LIFECYCLE.is_final(workload.state) and workload.state is not WorkloadState.FAILED:
            return False
        age_seconds = (self._clock() - spare.created_at).total_seconds()
        if not workload.status.instances[0].is_ready and age_seconds > _READY_SECONDS:
            return False
        wanted = await self._wanted(spare.id, spare.project_id, NotebookSpec.model_validate(spare.spec))
        return wanted == workload.spec

    async def _wanted(self, spare_id: str, project_id: str, spec: NotebookSpec) -> WorkloadSpec | None:
        """The workload of a spare; None where there can be none (now)."""
        project, image = await self._projects.get(project_id), self._images.find(spec.image_id)
        flavor = self._flavors.find(spec.flavor_id)
        if project is None or image is None or flavor is None:
            return None
        (shown,) = await self._images.show((image,))
        if shown.image_status_code != EnvironmentState.READY.value:
            return None
        environment = environment_spec(image)
        return notebook_workload(spare_id, None, spec, project, flavor, environment, {}, self._site)

    async def _make(self, row: ShapeRow, lease: Lease) -> bool:
        """Start one of this shape; False if that has to wait until others have started or ended."""
        spare_id = new_id()
        spec = NotebookSpec.model_validate(row.spec).model_copy(update={"run_id": new_id(), "idle_minutes": None})
        wanted = await self._wanted(spare_id, row.project_id, spec)
        if wanted is None:
            return True
        async with self._database.read() as session:  # most looks find the machine at work
            if not await self._workloads.has_room_for_spare(session, wanted):
                return False
        async with self._database.write() as session:
            await lease.guard(session)
            if not await self._workloads.has_room_for_spare(session, wanted):
                return False
            spare = SpareRow(
                id=spare_id,
                project_id=row.project_id,
                shape=row.shape,
                spec=spec.model_dump(mode="json"),
                created_at=self._clock(),
            )
            session.add(spare)
            await self._workloads.ensure(session, spec.run_id, row.project_id, wanted, actor=CONTROLLER)
        return True

    async def _end(self, spare: SpareRow, workload: Workload | None, lease: Lease) -> None:
        """Its workload first, then its storage, then itself. Nobody takes it from when it is marked."""
        has_volume = workload is None and await self._workloads.has_volume(spare.id)
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.held_spare(session, spare.id)
            if row is None:
                return  # somebody has taken it meanwhile
            if workload is not None and workload.state is WorkloadState.FAILED and not row.is_leaving:
                log.warning("A notebook that was to be kept ready did not start: %s", workload.message)
            row.is_leaving = True
            if workload is not None:
                await self._workloads.ask(session, workload.id, Desired.DELETE)
            elif has_volume:
                await self._workloads.discard_volume(session, spare.id)
            else:
                await session.delete(row)
