"""Makes stages true: model servers first, then the route; in the other order when they go. Endpoints are `endpoint_reconciler`'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.events import forget_events
from modelyard.control.reconciler import Again, Done, Outcome
from modelyard.control.transitions import CONTROLLER, move
from modelyard.control.work import Lease, enqueue, forget
from modelyard.db.engine import Database
from modelyard.kit.errors import UserError
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.instances import ServingSettings, inference_log, serving_workload, stage_route
from modelyard.resources.endpoints.lifecycle import (
    ENDPOINT_MODEL,
    STAGE,
    EndpointModelState,
    StageState,
)
from modelyard.resources.endpoints.model import (
    ENDPOINT_KIND,
    GATEWAY_REFUSED,
    GONE_FROM_GATEWAY,
    STAGE_KIND,
    EndpointModelSpec,
    EndpointSpec,
    StageSpec,
    StageStatus,
    waiting_seconds,
)
from modelyard.resources.endpoints.opening import Opening
from modelyard.resources.endpoints.openings import read_opening, wake_mirrored
from modelyard.resources.endpoints.table import EndpointModelRow, EndpointRow, StageRow
from modelyard.resources.endpoints.views import server_count, stage_addresses, stage_prefix
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.catalog import to_environment
from modelyard.resources.images.lifecycle import EnvironmentState
from modelyard.resources.images.service import Images, environment_spec
from modelyard.resources.projects.service import Projects
from modelyard.resources.routes.lifecycle import RouteState
from modelyard.resources.routes.model import Route
from modelyard.resources.routes.service import Routes
from modelyard.resources.storages.service import Storages
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import NO_ROOM, Desired, Workload
from modelyard.resources.workloads.service import Workloads

_FAILED_STATES = (WorkloadState.FAILED, WorkloadState.STOPPED, WorkloadState.SUCCEEDED)
_LEAVING_SECONDS = 1.0  # a model that was taken off its stage: how often to look whether its servers may end


class StageReconciler:
    """Reconciles stages."""

    kind = STAGE_KIND

    def __init__(
        self,
        database: Database,
        projects: Projects,
        images: Images,
        flavors: Flavors,
        storages: Storages,
        workloads: Workloads,
        routes: Routes,
        settings: ServingSettings,
        waiting_socket: Callable[[str], str],
    ) -> None:
        """`waiting_socket` answers where the requests of an endpoint model wait while it rests."""
        self._waiting_socket = waiting_socket
        self._database = database
        self._projects = projects
        self._images = images
        self._flavors = flavors
        self._storages = storages
        self._workloads = workloads
        self._routes = routes
        self._settings = settings

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Bring one stage a step further."""
        scene = await self._look(key)
        if scene is None:
            return Done()
        if scene.stage.desired == "delete":
            await self._delete(key, lease)
            return Done()
        if scene.stage.state == StageState.CREATE_FAILED.value:
            return Done()
        missing = [model for model in scene.models if model.id not in scene.workloads]
        if missing:
            await self._start(scene, missing, lease)
            return Done()
        failed = next((item for item in scene.workloads.values() if item.state in _FAILED_STATES), None)
        if failed is not None:
            await self._fail(scene, failed, lease)
            return Done()
        await self._deploy(scene, lease)
        is_fitting = await self._fit(scene, lease)
        if scene.leaving:
            await self._let_go(scene, lease)
        return Again(_LEAVING_SECONDS) if scene.leaving or not is_fitting else Done()

    async def _look(self, key: str) -> _Scene | None:
        async with self._database.read() as session:
            stage = await repository.stage_by_key(session, key)
            if stage is None:
                return None
            endpoint = await repository.endpoint_by_key(session, stage.endpoint_id)
            if endpoint is None:
                return None
            rows = await repository.models_of_stages(session, [stage.id])
            models = [row for row in rows if row.desired != "delete"]
            leaving = [row for row in rows if row.desired == "delete"]
            workloads = await self._workloads.get_many(session, [model.id for model in models])
            route = await self._routes.get(session, stage.id)
            opening = await read_opening(session, self._workloads, stage)
        return _Scene(stage, endpoint, models, workloads, route, opening, leaving)

    async def _start(self, scene: _Scene, missing: Sequence[EndpointModelRow], lease: Lease) -> None:
        """Ask for the model servers, once their images are there."""
        project = await self._projects.get(scene.stage.project_id)
        assert project is not None  # a project is never deleted while it has endpoints
        spec = StageSpec.model_validate(scene.stage.spec)
        for model in missing:
            model_spec = EndpointModelSpec.model_validate(model.spec)
            try:
                image = self._images.get(model_spec.image_id)
                wanted = serving_workload(
                    scene.stage.id,
                    model_spec,
                    f"endpoint '{scene.endpoint.name}'",
                    server_count(scene.stage, model),
                    self._flavors.get(spec.flavor_id),
                    environment_spec(image),
                    to_environment(image).digest,
                    await self._storages.locate(project, model_spec.artifact_uri),
                    self._settings,
                    inference_log(scene.endpoint.id, scene.stage.id, model_spec.model_name) if spec.use_log else None,
                )
            except UserError as fault:
                await self._record_failure(scene, "BAD_REQUEST", fault.message, (), lease)
                return
            async with self._database.write() as session:
                await lease.guard(session)
                stage = await repository.stage_by_key(session, scene.stage.id)
                if stage is None or stage.desired == "delete":
                    return
                environment = await self._images.need(session, image, STAGE_KIND, stage.id)
                if environment.state is EnvironmentState.READY:
                    await self._workloads.ensure(session, model.id, stage.project_id, wanted, actor=CONTROLLER)
                    _show(session, stage, StageState.CREATE_IN_PROGRESS, "STARTING", "The model server is starting.")
                    await _show_models(session, stage.id, EndpointModelState.CREATE_IN_PROGRESS)
                elif environment.state is not EnvironmentState.BUILD_FAILED:
                    _show(session, stage, StageState.CREATE_IN_PROGRESS, "IMAGE_BUILD", environment.message)
                await enqueue(session, ENDPOINT_KIND, stage.endpoint_id)
            if environment.state is EnvironmentState.BUILD_FAILED:
                await self._record_failure(scene, "IMAGE_BUILD_FAILED", environment.message or "", (), lease)
                return

    async def _deploy(self, scene: _Scene, lease: Lease) -> None:
        """Let requests in as soon as every model has a replica that is ready; follow replicas that come and go."""
        addresses = stage_addresses(scene.stage, scene.models, scene.workloads, self._waiting_socket)
        status = StageStatus.model_validate(scene.stage.status)
        is_up = all(addresses.values())
        is_complete = all(ready == wanted for ready, wanted in scene.counts)
        async with self._database.write() as session:
            await lease.guard(session)
            stage = await repository.stage_by_key(session, scene.stage.id)
            if stage is None or stage.desired == "delete":
                return
            before = (stage.state, stage.reason, stage.message)
            has_moved = False
            if is_complete or (status.was_deployed and is_up):
                has_moved = await self._put_route(session, scene, addresses)
            elif scene.route is not None:  # settings hold at once, also while nobody answers
                await self._routes.put(
                    session, stage.id, stage.project_id, scene.opening.restrict(scene.route.spec), actor=CONTROLLER
                )
            if has_moved:
                await wake_mirrored(session, stage)
            await self._show_deployment(session, stage, scene, status, is_up=is_up, is_complete=is_complete)
            # Only then: an endpoint wakes its stages too, and two that wake each other never rest.
            if has_moved or before != (stage.state, stage.reason, stage.message):
                await enqueue(session, ENDPOINT_KIND, stage.endpoint_id)

    async def _put_route(self, session: AsyncSession, scene: _Scene, addresses: Mapping[str, tuple[str, ...]]) -> bool:
        """Ask for the stage's own route; whether it leads elsewhere than before."""
        service_id = EndpointSpec.model_validate(scene.endpoint.spec).service_id
        models = [(model.id, EndpointModelSpec.model_validate(model.spec)) for model in scene.models]
        plain = stage_route(
            scene.stage.id,
            f"endpoint '{scene.endpoint.name}', stage '{scene.stage.name}'",
            stage_prefix(service_id, scene.stage),
            models,
            addresses,
            self._settings,
            {"endpoint": scene.endpoint.id, "stage": scene.stage.id},
            waiting_seconds(StageSpec.model_validate(scene.stage.spec)),
        )
        spec = scene.opening.apply(plain, models)
        await self._routes.put(session, scene.stage.id, scene.stage.project_id, spec, actor=CONTROLLER)
        return scene.route is None or scene.route.spec.upstreams != spec.upstreams

    async def _show_deployment(
        self,
        session: AsyncSession,
        stage: StageRow,
        scene: _Scene,
        status: StageStatus,
        *,
        is_up: bool,
        is_complete: bool,
    ) -> None:
        ids = [stage.id, *([stage.endpoint_id] if stage.is_default else [])]  # the endpoint's own route leads there too
        routes = await self._routes.get_many(session, ids)
        way = [routes.get(id) for id in ids]
        refused = next((route for route in way if route is not None and route.state is RouteState.FAILED), None)
        gone = next((route for route in way if route is not None and route.state is RouteState.NOT_FOUND), None)
        if refused is not None:
            _show(session, stage, StageState.DEPLOY_FAILED, GATEWAY_REFUSED, refused.message)
        elif gone is not None and status.was_deployed:
            _show(session, stage, StageState.ACTIVE, GONE_FROM_GATEWAY, gone.message)
        elif all(_leads(route, status) for route in way):
            _show(session, stage, StageState.ACTIVE, *_replicas(scene))
            stage.status = status.model_copy(update={"was_deployed": True}).model_dump(mode="json")
            await _show_models(session, stage.id, EndpointModelState.ACTIVE)
        elif is_complete:
            _show(session, stage, StageState.DEPLOY_IN_PROGRESS, "DEPLOYING", "The gateway takes the route.")
        elif not is_up or not status.was_deployed:
            reason, message = _waiting(scene)
            if stage.state in (StageState.CREATE_REQUESTED.value, StageState.CREATE_IN_PROGRESS.value):
                _show(session, stage, StageState.CREATE_IN_PROGRESS, reason, message)

    async def _fit(self, scene: _Scene, lease: Lease) -> bool:
        """Have as many model servers as were decided; whether that is so. Those that are too many end once no route leads to them."""
        wanted = {model.id: server_count(scene.stage, model) for model in scene.models}
        if all(scene.workloads[id].spec.instances == count for id, count in wanted.items()):
            return True
        async with self._database.write() as session:
            await lease.guard(session)
            stage = await repository.stage_by_key(session, scene.stage.id)
            if stage is None or stage.desired == "delete" or not StageStatus.model_validate(stage.status).was_deployed:
                return True
            routes = await self._routes.get_many(session, [stage.id, stage.endpoint_id])
            is_known = all(route.is_current or route.state is RouteState.FAILED for route in routes.values())
            leading = {
                address
                for route in routes.values()
                for upstream in route.spec.upstreams
                for address in upstream.addresses
            }
            is_fitting = True
            for id, count in wanted.items():
                workload = scene.workloads[id]
                surplus = {
                    address for seen in workload.status.instances for address in seen.addresses if seen.index >= count
                }
                if surplus and not (is_known and leading.isdisjoint(surplus)):
                    is_fitting = False
                    continue
                await self._workloads.resize(session, id, count)
            return is_fitting

    async def _let_go(self, scene: _Scene, lease: Lease) -> None:
        """Models taken off the stage: their servers end once no route leads to them any more; each step wakes us for the next."""
        async with self._database.write() as session:
            await lease.guard(session)
            stage = await repository.stage_by_key(session, scene.stage.id)
            if stage is None or stage.desired == "delete":
                return
            routes = await self._routes.get_many(session, [stage.id, stage.endpoint_id])
            leading = {upstream.name for route in routes.values() for upstream in route.spec.upstreams}
            is_known = all(route.is_current or route.state is RouteState.FAILED for route in routes.values())
            for model in await repository.models_of_stages(session, [stage.id]):
                if model.desired != "delete" or model.id in leading or not is_known:
                    continue
                if not await self._workloads.ask(session, model.id, Desired.DELETE):
                    await session.delete(model)

    async def _fail(self, scene: _Scene, failed: Workload, lease: Lease) -> None:
        lines = await self._workloads.last_lines(failed)
        message = f"The model server could not be started: {failed.message or 'it ended'}"
        await self._record_failure(scene, failed.reason or "MODEL_SERVER_FAILED", message, lines, lease)

    async def _record_failure(
        self, scene: _Scene, reason: str, message: str, lines: tuple[str, ...], lease: Lease
    ) -> None:
        """Show the reason and leave nothing running."""
        async with self._database.write() as session:
            await lease.guard(session)
            stage = await repository.stage_by_key(session, scene.stage.id)
            if stage is None or stage.desired == "delete":
                return
            status = StageStatus.model_validate(stage.status)
            stage.status = status.model_copy(update={"last_lines": lines}).model_dump(mode="json")
            state = StageState.DEPLOY_FAILED if status.was_deployed else StageState.CREATE_FAILED
            _show(session, stage, state, reason, message)
            if state is StageState.CREATE_FAILED:
                await _show_models(session, stage.id, EndpointModelState.CREATE_FAILED, message)
                await self._routes.remove(session, stage.id)
                for model in scene.models:
                    await self._workloads.ask(session, model.id, Desired.DELETE)
                    spec = EndpointModelSpec.model_validate(model.spec)
                    await self._images.release(session, spec.image_id, STAGE_KIND, stage.id)
            await enqueue(session, ENDPOINT_KIND, stage.endpoint_id)

    async def _delete(self, key: str, lease: Lease) -> None:
        """The route goes first, so that no request meets a server that is ending; each removal wakes us for the next step."""
        async with self._database.write() as session:
            await lease.guard(session)
            stage = await repository.stage_by_key(session, key)
            if stage is None:
                return
            if await self._routes.remove(session, key):
                return
            models = await repository.models_of_stages(session, [key])
            still_there = [await self._workloads.ask(session, model.id, Desired.DELETE) for model in models]
            if any(still_there):
                return
            for model in models:
                spec = EndpointModelSpec.model_validate(model.spec)
                await self._images.release(session, spec.image_id, STAGE_KIND, key)
                await repository.forget_call_mark(session, model.id)
                await session.delete(model)
            await repository.forget_call_mark(session, key)
            await session.flush()
            await session.delete(stage)
            await forget_events(session, STAGE_KIND, key)
            await forget(session, STAGE_KIND, key)
            await enqueue(session, ENDPOINT_KIND, stage.endpoint_id)


@dataclass(frozen=True, slots=True)
class _Scene:
    """All that was seen of a stage in one look."""

    stage: StageRow
    endpoint: EndpointRow
    models: Sequence[EndpointModelRow]
    workloads: Mapping[str, Workload]
    route: Route | None
    opening: Opening
    leaving: Sequence[EndpointModelRow] = ()

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Of each model, how many of the wanted servers are ready, and how many are wanted."""
        wanted = [(model.id, server_count(self.stage, model)) for model in self.models]
        return [(self.workloads[id].ready_count_of(count), count) for id, count in wanted]


def _show(session: AsyncSession, stage: StageRow, state: StageState, reason: str | None, message: str | None) -> None:
    if stage.state == state.value and stage.reason == reason:
        stage.message = message  # progress is not history: no event for each line of it
        return
    move(session, STAGE, stage, state, reason=reason, message=message)


async def _show_models(
    session: AsyncSession, stage_id: str, state: EndpointModelState, message: str | None = None
) -> None:
    for model in await repository.staying_models(session, [stage_id]):
        if model.state != state.value:
            move(session, ENDPOINT_MODEL, model, state, message=message)


def _leads(route: Route | None, status: StageStatus) -> bool:
    return route is not None and route.state is RouteState.ACTIVE and (route.is_current or status.was_deployed)


def _replicas(scene: _Scene) -> tuple[str | None, str | None]:
    """What there is to say of the model servers of a stage that answers, in a word and in a sentence."""
    ready, total = (sum(numbers) for numbers in zip(*scene.counts, strict=True))
    if ready == total:
        return (
            ("AT_REST", "No model server runs; the next request starts one and waits for it.")
            if not total
            else (None, None)
        )
    told = f"{ready} of {total} model servers are ready."
    short = next((each for each in scene.workloads.values() if each.reason == NO_ROOM and each.message), None)
    if short is not None:
        return "NOT_ALL_READY", f"{told} {short.message}"
    ended = next((seen.exit for each in scene.workloads.values() for seen in each.status.instances if seen.exit), None)
    return "NOT_ALL_READY", told if ended is None else f"{told} One that has ended is started again: {ended.message}"


def _waiting(scene: _Scene) -> tuple[str, str]:
    """Why it takes time: waiting for room, fetching the model, loading it."""
    for workload in scene.workloads.values():
        if workload.state is WorkloadState.PENDING and workload.message:
            return workload.reason or "WAITING", workload.message
        message = workload.report.get("message")
        step = workload.report.get("step")
        if isinstance(message, str) and message and isinstance(step, str):
            return step.upper()[:32], message[:500]
    return "STARTING", "The model server is starting."
