"""Makes endpoints true: one route that leads to the stages that share the requests, and the end of a stage that was the default one.

An endpoint's state follows from those of its stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.events import forget_events
from modelyard.control.reconciler import Again, Done, Outcome
from modelyard.control.transitions import CONTROLLER, move
from modelyard.control.work import Lease, enqueue, forget
from modelyard.db.engine import Database
from modelyard.db.rows import row_of
from modelyard.kit.clock import utc_now
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.ending import ask_stage_delete
from modelyard.resources.endpoints.instances import Part, ServingSettings, endpoint_route
from modelyard.resources.endpoints.lifecycle import ENDPOINT, EndpointState, StageState
from modelyard.resources.endpoints.model import (
    ENDPOINT_KIND,
    GATEWAY_REFUSED,
    GONE_FROM_GATEWAY,
    STAGE_KIND,
    EndpointModelSpec,
    EndpointSpec,
    EndpointStatus,
    ServedModel,
    ServingStage,
    Share,
    StageSpec,
    StageStatus,
    waiting_seconds,
)
from modelyard.resources.endpoints.opening import Opening
from modelyard.resources.endpoints.openings import read_opening
from modelyard.resources.endpoints.table import EndpointModelRow, EndpointRow, StageRow, TrafficRow
from modelyard.resources.endpoints.views import endpoint_prefix, stage_addresses
from modelyard.resources.routes.lifecycle import RouteState
from modelyard.resources.routes.model import Route
from modelyard.resources.routes.service import Routes
from modelyard.resources.workloads.model import Workload
from modelyard.resources.workloads.service import Workloads


class EndpointReconciler:
    """Reconciles endpoints."""

    kind = ENDPOINT_KIND

    def __init__(
        self,
        database: Database,
        workloads: Workloads,
        routes: Routes,
        settings: ServingSettings,
        waiting_socket: Callable[[str], str],
    ) -> None:
        """`waiting_socket` answers where the requests of an endpoint model wait while it rests."""
        self._waiting_socket = waiting_socket
        self._database = database
        self._workloads = workloads
        self._routes = routes
        self._settings = settings

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Bring one endpoint a step further, or forget it once its stages and its route are gone."""
        async with self._database.write() as session:
            await lease.guard(session)
            row = await row_of(
                session, EndpointRow, key, lock="wait"
            )  # it may write the spec (`repository.held_endpoint`)
            if row is None:
                return Done()
            stages = await repository.stages_of(session, [key])
            if row.desired == "delete":
                if not await self._routes.remove(session, key) and not stages:
                    await repository.forget_calls(session, key)
                    await repository.forget_call_mark(session, key)
                    await session.delete(row)
                    await forget_events(session, ENDPOINT_KIND, key)
                    await forget(session, ENDPOINT_KIND, key)
                return Done()
            is_settled = await self._lead(session, row, stages)
            outcome = await self._end_former(session, row, stages) if is_settled else Done()
            _show(session, row, stages)
        return outcome

    async def _lead(self, session: AsyncSession, row: EndpointRow, stages: Sequence[StageRow]) -> bool:
        """Ask for the route to where the requests belong; whether the gateway has it."""
        spec = EndpointSpec.model_validate(row.spec)
        sharing = _sharing(spec, stages)
        models = await repository.staying_models(session, [stage.id for stage, _ in sharing])
        workloads = await self._workloads.get_many(session, [model.id for model in models])
        parts: list[tuple[ServingStage, Part]] = []
        for stage, weight in sharing:
            own = [model for model in models if model.stage_id == stage.id]
            part = self._part(stage, weight, own, workloads)
            if part is not None:
                parts.append((_serving(stage, weight, own), part))
        default = next((stage for stage in stages if stage.is_default), None)
        opening = None if default is None else await read_opening(session, self._workloads, default)
        if not parts:
            if (
                opening is not None
            ):  # whoever answered last goes on as long as it can, and asks for what is asked for now
                await self._restrict(session, row, opening)
            return False
        title = f"endpoint '{row.name}'"
        wanted = endpoint_route(
            row.id, title, endpoint_prefix(spec.service_id), [part for _, part in parts], self._settings
        )
        if opening is not None:
            wanted = opening.apply(wanted, _models_of(parts, opening.stage_id))
        route = await self._routes.put(session, row.id, row.project_id, wanted, actor=CONTROLLER)
        is_deployed = _is_deployed(route)
        await _wake_default(session, stages, route)
        if is_deployed:
            _record(session, row, tuple(serving for serving, _ in parts))
        return is_deployed

    def _part(
        self, stage: StageRow, weight: int, models: Sequence[EndpointModelRow], workloads: Mapping[str, Workload]
    ) -> Part | None:
        addresses = stage_addresses(stage, models, workloads, self._waiting_socket)
        if not models or not all(addresses.values()):
            return None
        specs = [(model.id, EndpointModelSpec.model_validate(model.spec)) for model in models]
        waiting = waiting_seconds(StageSpec.model_validate(stage.spec))
        return Part(weight=weight, models=specs, addresses=addresses, waiting_seconds=waiting)

    async def _restrict(self, session: AsyncSession, row: EndpointRow, opening: Opening) -> None:
        route = await self._routes.get(session, row.id)
        if route is not None:
            await self._routes.put(session, row.id, row.project_id, opening.restrict(route.spec), actor=CONTROLLER)

    async def _end_former(self, session: AsyncSession, row: EndpointRow, stages: Sequence[StageRow]) -> Outcome:
        """Delete the stage that was the default one, when its time has come and no request goes to it any more."""
        spec = EndpointSpec.model_validate(row.spec)
        if spec.former is None or spec.is_former_in_use:  # whoever takes its requests away wakes this
            return Done()
        remaining = (spec.former.until - utc_now()).total_seconds()
        stage = next((stage for stage in stages if stage.id == spec.former.stage_id), None)
        if stage is not None and stage.desired != "delete":
            if remaining > 0:
                return Again(remaining)
            await ask_stage_delete(session, stage, actor=CONTROLLER)
        row.spec = spec.model_copy(update={"former": None}).model_dump(mode="json")
        return Done()


def endpoint_state(old: EndpointState, stages: Sequence[StageRow]) -> tuple[EndpointState, str | None, str | None]:
    """What an endpoint's state is, given its stages and what it was."""
    default = next((stage for stage in stages if stage.is_default), None)
    is_new = old in (EndpointState.CREATE_REQUESTED, EndpointState.CREATE_IN_PROGRESS, EndpointState.CREATE_FAILED)
    if is_new and default is not None:
        match StageState(default.state):
            case StageState.CREATE_FAILED | StageState.DEPLOY_FAILED:
                return EndpointState.CREATE_FAILED, default.reason, default.message
            case StageState.ACTIVE:
                pass
            case _:
                return EndpointState.CREATE_IN_PROGRESS, default.reason, default.message
    if is_new and default is None:
        return old, None, None
    failed = next((stage for stage in stages if "FAILED" in stage.state), None)
    if failed is not None:
        return EndpointState.UPDATE_FAILED, failed.reason, f"Stage '{failed.name}': {failed.message}"
    busy = next((stage for stage in stages if stage.state != StageState.ACTIVE.value), None)
    if busy is not None:
        return EndpointState.UPDATE_IN_PROGRESS, busy.reason, f"Stage '{busy.name}': {busy.message or busy.state}"
    return EndpointState.ACTIVE, None, None


def _sharing(spec: EndpointSpec, stages: Sequence[StageRow]) -> list[tuple[StageRow, int]]:
    """The stages that are to get requests and can (they have been deployed, or are about to be), the default one first, with their weights."""
    living = {stage.id: stage for stage in stages if stage.desired != "delete" and _can_answer(stage)}
    default = [Share(stage_id=stage.id) for stage in living.values() if stage.is_default]
    shares = [share for share in spec.shares if share.stage_id in living and share.weight > 0] or default
    shares.sort(key=lambda share: not living[share.stage_id].is_default)
    return [(living[share.stage_id], share.weight) for share in shares]


def _can_answer(stage: StageRow) -> bool:
    """Whether all its model servers were ready once."""
    is_up = stage.state in (StageState.DEPLOY_IN_PROGRESS.value, StageState.ACTIVE.value)
    return is_up or StageStatus.model_validate(stage.status).was_deployed


def _serving(stage: StageRow, weight: int, models: Sequence[EndpointModelRow]) -> ServingStage:
    specs = [(model, EndpointModelSpec.model_validate(model.spec)) for model in models]
    return ServingStage(
        stage_id=stage.id,
        stage_name=stage.name,
        weight=weight,
        models=tuple(
            ServedModel(
                endpoint_model_id=model.id,
                model_id=spec.model_id,
                model_name=spec.model_name,
                artifact_uri=spec.artifact_uri,
            )
            for model, spec in specs
        ),
    )


def _models_of(parts: Sequence[tuple[ServingStage, Part]], stage_id: str) -> Sequence[tuple[str, EndpointModelSpec]]:
    return next((part.models for serving, part in parts if serving.stage_id == stage_id), ())


async def _wake_default(session: AsyncSession, stages: Sequence[StageRow], route: Route) -> None:
    """The default stage shows whether the endpoint's route leads to it: let it look when it shows something else."""
    is_bad = route.state in (RouteState.NOT_FOUND, RouteState.FAILED)
    for stage in stages:
        shows_bad = stage.reason in (GONE_FROM_GATEWAY, GATEWAY_REFUSED)
        is_waiting = stage.state == StageState.DEPLOY_IN_PROGRESS.value or shows_bad
        if stage.is_default and (is_waiting if _is_deployed(route) else is_bad and not shows_bad):
            await enqueue(session, STAGE_KIND, stage.id, is_hint=True)


def _is_deployed(route: Route) -> bool:
    return route.state is RouteState.ACTIVE and route.is_current


def _record(session: AsyncSession, row: EndpointRow, traffic: tuple[ServingStage, ...]) -> None:
    """Write down who answers from now on, when it is somebody else than before."""
    status = EndpointStatus.model_validate(row.status)
    if status.traffic == traffic:
        return
    stages = [stage.model_dump(mode="json") for stage in traffic]
    session.add(TrafficRow(endpoint_id=row.id, since=utc_now(), stages=stages))
    row.status = EndpointStatus(traffic=traffic).model_dump(mode="json")


def _show(session: AsyncSession, row: EndpointRow, stages: Sequence[StageRow]) -> None:
    state, reason, message = endpoint_state(EndpointState(row.state), stages)
    if row.state == state.value and row.reason == reason:
        row.message = message
    else:
        move(session, ENDPOINT, row, state, reason=reason, message=message)
