"""Makes notebooks true: has the image built, asks for a workload at each start, and follows it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.events import forget_events
from modelyard.control.reconciler import Again, Done, Outcome
from modelyard.control.transitions import CONTROLLER, move
from modelyard.control.work import Lease, forget
from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.errors import UserError
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.catalog import CatalogImage
from modelyard.resources.images.lifecycle import EnvironmentState
from modelyard.resources.images.service import Images, environment_spec
from modelyard.resources.notebooks import repository
from modelyard.resources.notebooks.decision import Verdict, failed, judge, starting, status_seen, wants_to_sleep
from modelyard.resources.notebooks.instances import KIND, NotebookSite, notebook_route, notebook_workload
from modelyard.resources.notebooks.lifecycle import ACTIVE, LIFECYCLE, NotebookState
from modelyard.resources.notebooks.model import NotebookSpec, NotebookStatus
from modelyard.resources.notebooks.table import NotebookRow
from modelyard.resources.projects.model import Project
from modelyard.resources.projects.service import Projects
from modelyard.resources.routes.lifecycle import RouteState
from modelyard.resources.routes.model import Route
from modelyard.resources.routes.service import Routes
from modelyard.resources.storages.model import VolumeLocation
from modelyard.resources.storages.service import Storages
from modelyard.resources.workloads.lifecycle import LIFECYCLE as WORKLOAD_LIFECYCLE
from modelyard.resources.workloads.model import Desired, Workload, WorkloadSpec
from modelyard.resources.workloads.service import Workloads

_PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 0.3
_S = NotebookState


class NotebookReconciler:
    """Reconciles notebooks."""

    kind = KIND

    def __init__(
        self,
        database: Database,
        projects: Projects,
        images: Images,
        flavors: Flavors,
        storages: Storages,
        workloads: Workloads,
        routes: Routes,
        site: NotebookSite,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._projects = projects
        self._images = images
        self._flavors = flavors
        self._storages = storages
        self._workloads = workloads
        self._routes = routes
        self._site = site
        self._clock = clock

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Bring one notebook a step further."""
        async with self._database.read() as session:
            row = await repository.by_key(session, key)
            workload = None if row is None else await self._workload_of(session, row)
        if row is None:
            return Done()
        if row.desired == "delete":
            return await self._delete(key, lease)
        if row.desired == "stop":
            return await self._stop(key, workload, lease)
        if row.state == _S.CREATE_FAILED.value:
            return await self._tidy(key, lease)
        if row.state in (_S.START_FAILED.value, _S.STOPPED.value):
            return Done()
        if workload is not None and workload.id != NotebookSpec.model_validate(row.spec).run_id:
            await self._ask(lease, workload.id, Desired.DELETE)  # of the start before; its end wakes us
            return Done()
        if workload is None:
            await self._begin(row, lease)
            return Done()
        return await self._follow(key, workload, lease)

    async def _workload_of(self, session: AsyncSession, row: NotebookRow) -> Workload | None:
        """The one that exists: of the start before as long as it is there."""
        run_id = NotebookStatus.model_validate(row.status).run_id
        return None if run_id is None else await self._workloads.get(session, run_id)

    async def _begin(self, row: NotebookRow, lease: Lease) -> None:
        """Ask for the workload, once the image is there."""
        spec, old = NotebookSpec.model_validate(row.spec), NotebookState(row.state)
        project = await self._projects.get(row.project_id)
        image = self._images.find(spec.image_id)
        if project is None or image is None:
            missing = (
                f"The image '{spec.image_name}' is no longer in the catalogue. Ask an administrator, or use another."
            )
            await self._record(row.id, lease, Verdict(failed(old), "UNKNOWN_IMAGE", missing))
            return
        try:
            wanted = await self._wanted(row, spec, project, image)
        except UserError as fault:
            await self._record(row.id, lease, Verdict(failed(old), "BAD_REQUEST", fault.message))
            return
        async with self._database.write() as session:
            await lease.guard(session)
            current = await repository.by_key(session, row.id, is_held=True)
            if current is None or current.desired != "run" or current.generation != row.generation:
                return
            environment = await self._images.need(session, image, KIND, row.id)
            match environment.state:
                case EnvironmentState.READY:
                    await self._workloads.ensure(session, spec.run_id, row.project_id, wanted, actor=CONTROLLER)
                    status = NotebookStatus.model_validate(current.status)
                    current.status = status.model_copy(update={"run_id": spec.run_id}).model_dump(mode="json")
                    verdict = Verdict(starting(old), "STARTING", "The instance is starting.")
                case EnvironmentState.BUILD_FAILED:
                    verdict = Verdict(failed(old), "IMAGE_BUILD_FAILED", environment.message)
                case _:
                    verdict = Verdict(starting(old), "IMAGE_BUILD", environment.message)
            _move(session, current, verdict)

    async def _wanted(
        self, row: NotebookRow, spec: NotebookSpec, project: Project, image: CatalogImage
    ) -> WorkloadSpec:
        mounts: dict[str, VolumeLocation] = {}
        for mount in spec.mounts:
            location = await self._storages.locate(project, mount.uri)
            if isinstance(location, VolumeLocation):
                mounts[mount.name] = location
        flavor = self._flavors.get(spec.flavor_id)
        return notebook_workload(row.id, row.name, spec, project, flavor, environment_spec(image), mounts, self._site)

    async def _follow(self, key: str, workload: Workload, lease: Lease) -> Outcome:
        """Show what is seen of the workload."""
        async with self._database.read() as session:
            row = await repository.by_key(session, key)
        if row is None:
            return Done()
        is_over = WORKLOAD_LIFECYCLE.is_final(workload.state)
        lines = await self._workloads.last_lines(workload) if is_over else ()
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, key, is_held=True)
            if row is None or row.desired != "run":
                return Done()  # a wish came meanwhile, and with it another look
            if wants_to_sleep(workload, NotebookSpec.model_validate(row.spec).idle_minutes):
                await self._put_to_sleep(session, row)
                return Again(0.0)
            status = status_seen(NotebookStatus.model_validate(row.status), workload)
            row.status = status.model_copy(update={"last_lines": lines or status.last_lines}).model_dump(mode="json")
            route = await self._open(session, row, workload)
            _move(session, row, _reachable(NotebookState(row.state), judge(NotebookState(row.state), workload), route))
            return Again(0.0) if row.state == _S.CREATE_FAILED.value else Done()

    async def _open(self, session: AsyncSession, row: NotebookRow, workload: Workload) -> Route | None:
        """The way to it, from when it is ready for the first time; it stays while Jupyter is away for a moment."""
        seen = workload.status.instances[0]
        if seen.is_ready and seen.address is not None:
            wanted = notebook_route(row.id, row.name, row.project_id, seen.address, self._site)
            return await self._routes.put(session, row.id, row.project_id, wanted, actor=CONTROLLER)
        return await self._routes.get(session, row.id)

    async def _put_to_sleep(self, session: AsyncSession, row: NotebookRow) -> None:
        """What the user has asked for in advance: stop when nobody uses it."""
        minutes = NotebookSpec.model_validate(row.spec).idle_minutes
        row.desired = "stop"
        row.generation += 1
        status = NotebookStatus.model_validate(row.status)
        row.status = status.model_copy(update={"asked_at": self._clock()}).model_dump(mode="json")
        message = (
            f"Nobody has used it for {minutes} {'minute' if minutes == 1 else 'minutes'}; it stops as its settings say."
        )
        move(session, LIFECYCLE, row, _S.STOP_IN_PROGRESS, reason="IDLE", message=message)

    async def _stop(self, key: str, workload: Workload | None, lease: Lease) -> Outcome:
        """End what runs. The workload itself stays until the next start, with its output."""
        is_over = workload is None or WORKLOAD_LIFECYCLE.is_final(workload.state)
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, key, is_held=True)
            if row is None or row.desired != "stop" or row.state == _S.STOPPED.value:
                return Done()
            await self._routes.remove(session, key)
            if workload is None:
                await self._images.release(session, NotebookSpec.model_validate(row.spec).image_id, KIND, key)
            elif not is_over:
                await self._workloads.ask(session, workload.id, Desired.STOP)
            if is_over:
                _move(session, row, Verdict(_S.STOPPED, _why(row), row.message if row.reason == "IDLE" else None))
                return Done()
            return self._late(session, row, _S.STOP_FAILED, "Its processes do not end")

    async def _delete(self, key: str, lease: Lease) -> Outcome:
        """The workloads first, then the data storage, then the notebook."""
        async with self._database.read() as session:
            row = await repository.by_key(session, key)
        if row is None:
            return Done()
        if await self._is_emptied(row, lease):
            async with self._database.write() as session:
                await lease.guard(session)
                current = await repository.by_key(session, key, is_held=True)
                if current is not None:
                    await self._images.release(session, NotebookSpec.model_validate(current.spec).image_id, KIND, key)
                    await session.delete(current)
                await forget_events(session, KIND, key)
                await forget(session, KIND, key)
            return Done()
        async with self._database.write() as session:
            await lease.guard(session)
            current = await repository.by_key(session, key, is_held=True)
            if current is None:
                return Done()
            return self._late(session, current, _S.DELETE_FAILED, "Its storage can't be removed")

    async def _tidy(self, key: str, lease: Lease) -> Outcome:
        """What a failed creation has left takes no room."""
        async with self._database.read() as session:
            row = await repository.by_key(session, key)
        return Done() if row is None or await self._is_emptied(row, lease) else Again(_LOOK_SECONDS)

    async def _is_emptied(self, row: NotebookRow, lease: Lease) -> bool:
        """Whether nothing of it is left outside the database; asks for the next thing to go if there is any."""
        async with self._database.write() as session:
            await lease.guard(session)
            if await self._routes.remove(session, row.id):  # first, so that no request meets a server that is ending
                return False
        runs = {NotebookSpec.model_validate(row.spec).run_id, NotebookStatus.model_validate(row.status).run_id} - {None}
        for run_id in sorted(filter(None, runs)):
            if await self._ask(lease, run_id, Desired.DELETE):
                return False
        if not await self._workloads.has_volume(row.id):
            return True
        async with self._database.write() as session:
            await lease.guard(session)
            await self._workloads.discard_volume(session, row.id)
        return False

    async def _ask(self, lease: Lease, workload_id: str, desired: Desired) -> bool:
        async with self._database.write() as session:
            await lease.guard(session)
            return await self._workloads.ask(session, workload_id, desired)

    def _late(self, session: AsyncSession, row: NotebookRow, state: NotebookState, what: str) -> Outcome:
        """Look again; say so when it takes too long. It may end well all the same."""
        asked_at = NotebookStatus.model_validate(row.status).asked_at or self._clock()
        waited_seconds = _seconds_since(asked_at, self._clock())
        if waited_seconds > _PATIENCE_SECONDS and row.state != state.value:
            message = f"{what}, for {waited_seconds / 60:.0f} minutes now. Try again, or ask an administrator to look."
            _move(session, row, Verdict(state, "TIMEOUT", message))
        return Again(max(_LOOK_SECONDS, min(30.0, waited_seconds / 8)))

    async def _record(self, key: str, lease: Lease, verdict: Verdict) -> None:
        async with self._database.write() as session:
            await lease.guard(session)
            row = await repository.by_key(session, key, is_held=True)
            if row is not None and row.desired == "run":
                _move(session, row, verdict)


def _seconds_since(moment: datetime, now: datetime) -> float:
    return (now - moment).total_seconds()


def _reachable(old: NotebookState, verdict: Verdict, route: Route | None) -> Verdict:
    """It is healthy when browsers can come in."""
    if verdict.state is not _S.ACTIVE_HEALTHY or old in ACTIVE:
        return verdict
    if route is not None and route.state is RouteState.FAILED:
        return Verdict(failed(old), "GATEWAY_REFUSED", route.message)
    if route is None or route.state is not RouteState.ACTIVE or not route.is_current:
        return Verdict(starting(old), "DEPLOYING", "The gateway takes the route.")
    return verdict


def _why(row: NotebookRow) -> str:
    return "IDLE" if row.reason == "IDLE" else "STOPPED"


def _move(session: AsyncSession, row: NotebookRow, verdict: Verdict) -> None:
    if row.state == verdict.state.value and verdict.reason == row.reason:
        row.message = verdict.message  # progress of a step is not history: no event for each line of it
        return
    move(session, LIFECYCLE, row, verdict.state, reason=verdict.reason, message=verdict.message)
