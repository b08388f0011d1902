"""Makes TensorBoards true: the environment, the server, then the route; and ends those that nobody looks at."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from modelyard.control.events import forget_events
from modelyard.control.reconciler import Again, Done, Outcome
from modelyard.control.transitions import CONTROLLER, move
from modelyard.control.work import Lease, forget
from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.resources.images.lifecycle import EnvironmentState
from modelyard.resources.images.service import Images
from modelyard.resources.metrics.model import EventFiles
from modelyard.resources.routes.lifecycle import RouteState
from modelyard.resources.routes.service import Routes
from modelyard.resources.sessions.origins import Origins
from modelyard.resources.tensorboards import repository
from modelyard.resources.tensorboards.instances import VIEW, environment, run_names, view_route, view_workload
from modelyard.resources.tensorboards.lifecycle import LIFECYCLE, TensorBoardState
from modelyard.resources.tensorboards.model import KIND, Owner, OwnerKind
from modelyard.resources.tensorboards.service import let_go
from modelyard.resources.tensorboards.table import TensorBoardRow
from modelyard.resources.trainings.service import Trainings
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Desired, Workload
from modelyard.resources.workloads.service import Workloads

_LOOK_AGAIN_SECONDS = 5.0
_FAILED_STATES = (WorkloadState.FAILED, WorkloadState.STOPPED, WorkloadState.SUCCEEDED)
_LAST_LINES = 3


class TensorBoardReconciler:
    """Reconciles TensorBoards. `idle` is how long one is kept that nobody looks at."""

    kind = KIND

    def __init__(
        self,
        database: Database,
        images: Images,
        trainings: Trainings,
        workloads: Workloads,
        routes: Routes,
        files: EventFiles,
        origins: Origins,
        idle: timedelta,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._images = images
        self._trainings = trainings
        self._workloads = workloads
        self._routes = routes
        self._files = files
        self._origins = origins
        self._idle = idle
        self._clock = clock

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Bring one a step further."""
        async with self._database.read() as session:
            row = await repository.by_id(session, key)
            workload = await self._workloads.get(session, key)
        if row is None:
            return Done()
        if row.desired == "delete":
            return await self._remove(key, lease)
        if row.state == TensorBoardState.FAILED.value:
            return await self._end_if_idle(key, lease)
        owner = Owner.model_validate(row.spec)
        await self._arrange(owner)
        if workload is not None and workload.state in _FAILED_STATES:
            return await self._fail(key, workload, lease)
        return await self._follow(key, owner, lease)

    async def _follow(self, key: str, owner: Owner, lease: Lease) -> Outcome:
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_id(session, key)
            if row is None or row.desired == "delete":
                return Done()
            if self._is_idle(row):
                await let_go(session, row, "IDLE", actor=CONTROLLER)
                return Done()
            workload = await self._workloads.get(session, key)
            if workload is None:
                built = await self._images.need_environment(session, environment(), KIND, key)
                if built.state is EnvironmentState.BUILD_FAILED:
                    move(
                        session,
                        LIFECYCLE,
                        row,
                        TensorBoardState.FAILED,
                        reason="IMAGE_BUILD_FAILED",
                        message=built.message,
                    )
                    return Done()
                if built.state is not EnvironmentState.READY:
                    message = f"TensorBoard is being installed, once for all: {built.message or 'it begins'}"
                    move(session, LIFECYCLE, row, TensorBoardState.STARTING, reason="IMAGE_BUILD", message=message)
                    return Again(_LOOK_AGAIN_SECONDS)
                prefix = self._origins.place(KIND, owner.id).prefix
                wanted = view_workload(key, owner, self._files, prefix)
                workload = await self._workloads.ensure(session, key, row.project_id, wanted, actor=CONTROLLER)
            addresses = workload.ready_addresses
            if not addresses:
                message = workload.message or "The server is starting."
                move(session, LIFECYCLE, row, TensorBoardState.STARTING, reason="STARTING", message=message)
                return Again(_LOOK_AGAIN_SECONDS)
            place = self._origins.place(KIND, owner.id)
            route = await self._routes.put(
                session, key, row.project_id, view_route(key, owner, place, addresses), actor=CONTROLLER
            )
            if route.state is RouteState.FAILED:
                move(session, LIFECYCLE, row, TensorBoardState.FAILED, reason="GATEWAY_REFUSED", message=route.message)
            elif route.state is RouteState.ACTIVE and route.is_current:
                move(session, LIFECYCLE, row, TensorBoardState.ACTIVE)
        return Again(_LOOK_AGAIN_SECONDS)

    async def _end_if_idle(self, key: str, lease: Lease) -> Outcome:
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_id(session, key)
            if row is not None and self._is_idle(row):
                await let_go(session, row, "IDLE", actor=CONTROLLER)
                return Done()
        return Again(self._idle.total_seconds())

    async def _fail(self, key: str, workload: Workload, lease: Lease) -> Outcome:
        lines = (await self._workloads.last_lines(workload))[-_LAST_LINES:]
        message = f"TensorBoard could not be started: {workload.message or 'it ended'}"
        said = f"{message} Its last lines: {' / '.join(lines)}" if lines else message
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_id(session, key)
            if row is not None and row.desired != "delete":
                move(session, LIFECYCLE, row, TensorBoardState.FAILED, reason=workload.reason, message=said)
        return Again(self._idle.total_seconds())

    async def _remove(self, key: str, lease: Lease) -> Outcome:
        """The route first, then the server; each removal wakes us for the next step."""
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_id(session, key)
            if row is None:
                return Done()
            if await self._routes.remove(session, key) or await self._workloads.ask(session, key, Desired.DELETE):
                return Done()
            await session.delete(row)
            await forget_events(session, LIFECYCLE.name, key)
            await forget(session, KIND, key)
        return Done()

    async def _arrange(self, owner: Owner) -> None:
        """Have the directories there and, for an experiment, a link to each of its trainings under the training's name."""
        if owner.kind is OwnerKind.TRAINING:
            await asyncio.to_thread(_have, self._files.of_training(owner.experiment_id, owner.id))
            return
        names = await self._trainings.names_in(owner.id)
        await asyncio.to_thread(arrange_links, self._files.of_experiment(owner.id) / VIEW, run_names(names))

    def _is_idle(self, row: TensorBoardRow) -> bool:
        return self._clock() - row.used_at > self._idle


def arrange_links(view: Path, names: dict[str, str]) -> None:
    """Make the directory `view` have exactly a link for each training id, by name, to the directory beside it."""
    _have(view)
    wanted = {name: f"../{id}" for id, name in names.items()}
    for entry in list(view.iterdir()):
        if not entry.is_symlink() or str(entry.readlink()) != wanted.get(entry.name):
            entry.unlink()
    for name, target in wanted.items():
        if not (view / name).is_symlink():
            (view / name).symlink_to(target)


def _have(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
