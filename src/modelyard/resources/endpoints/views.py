"""Endpoints and stages as the wire shows them: what was asked for, joined with what is seen of workloads and routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.endpoints.instances import addresses_of, resource_path
from modelyard.resources.endpoints.lifecycle import GatewayState, StageState
from modelyard.resources.endpoints.model import (
    DEFAULT_STAGE_NAME,
    EndpointModelSpec,
    EndpointModelStatus,
    EndpointSpec,
    Scaling,
    StageSpec,
    StageStatus,
    may_wait,
    metric_of,
    model_server_count,
)
from modelyard.resources.endpoints.opening import words_of
from modelyard.resources.endpoints.schemas import (
    EndpointModelOut,
    EndpointModelStage,
    EndpointOut,
    EndpointStageOut,
    GatewayRule,
    GatewayUpstream,
    StageGatewaySettings,
    TrafficShare,
    auto_scaler_of,
)
from modelyard.resources.endpoints.stage_settings import StageSettings
from modelyard.resources.endpoints.table import EndpointModelRow, EndpointRow, StageRow
from modelyard.resources.flavors.service import Flavors, flavor_out
from modelyard.resources.models.schemas import ModelOut
from modelyard.resources.models.service import Models
from modelyard.resources.projects.model import Project
from modelyard.resources.routes.lifecycle import RouteState
from modelyard.resources.routes.model import Route
from modelyard.resources.routes.service import Routes
from modelyard.resources.workloads.model import Workload
from modelyard.resources.workloads.service import Workloads


@dataclass(frozen=True, slots=True)
class StageView:
    """A stage in wire form, with the endpoint that it belongs to."""

    endpoint_id: str
    out: EndpointStageOut


class Views:
    """Builds wire forms. `public_host` is the gateway's host and port in URLs, e.g. `127.0.0.1:10443`."""

    def __init__(
        self,
        workloads: Workloads,
        routes: Routes,
        models: Models,
        flavors: Flavors,
        *,
        public_host: str,
        region: str,
    ) -> None:
        self._workloads = workloads
        self._routes = routes
        self._models = models
        self._flavors = flavors
        self._public_host = public_host
        self._region = region

    async def stages(
        self,
        session: AsyncSession,
        project: Project,
        rows: Sequence[StageRow],
        endpoints: Mapping[str, EndpointRow],
        model_rows: Sequence[EndpointModelRow],
    ) -> Sequence[StageView]:
        """Stages in wire form."""
        workloads = await self._workloads.get_many(session, [row.id for row in model_rows])
        models = await self._models.get_many(session, project, [row.model_id for row in model_rows])
        routes = await self._routes.get_many(session, [*(row.id for row in rows), *endpoints])
        views: list[StageView] = []
        for row in rows:
            own = [model for model in model_rows if model.stage_id == row.id]
            way = [routes.get(row.id), *([routes.get(row.endpoint_id)] if row.is_default else [])]
            out = self._stage(row, endpoints[row.endpoint_id], project, own, workloads, models, way)
            views.append(StageView(row.endpoint_id, out))
        return views

    def endpoint(self, row: EndpointRow, project: Project, stages: Sequence[StageView]) -> EndpointOut:
        """An endpoint in wire form."""
        spec = EndpointSpec.model_validate(row.spec)
        default = next((view.out for view in stages if view.out.is_default_stage), None)
        gateway_state = default.deploy_status if default is not None else GatewayState.NOT_FOUND_STAGE.value
        return EndpointOut.model_validate(
            {
                **_shared(row, project),
                "endpoint_id": row.id,
                "endpoint_name": row.name,
                "endpoint_status_code": row.state,
                "apigw_app_key": project.app_key,
                "apigw_region": self._region,
                "apigw_service_id": spec.service_id,
                "apigw_status_code": gateway_state,
                "default_stage_url": None if default is None else default.apigw_stage_url,
                "endpoint_url": self._public_host + endpoint_prefix(spec.service_id),
                "former_default_stage_id": None if spec.former is None else spec.former.stage_id,
                "revertible_until_datetime": None if spec.former is None else spec.former.until,
                "traffic_share_list": [
                    TrafficShare(endpoint_stage_id=share.stage_id, weight=share.weight) for share in spec.shares
                ],
                "endpoint_stage_list": [view.out for view in stages],
            }
        )

    def _stage(
        self,
        row: StageRow,
        endpoint: EndpointRow,
        project: Project,
        models: Sequence[EndpointModelRow],
        workloads: Mapping[str, Workload],
        known_models: Mapping[str, ModelOut],
        way: Sequence[Route | None],
    ) -> EndpointStageOut:
        spec = StageSpec.model_validate(row.spec)
        status = StageStatus.model_validate(row.status)
        flavor = self._flavors.find(spec.flavor_id)
        url = self._public_host + public_path(EndpointSpec.model_validate(endpoint.spec).service_id, row)
        deploy_status = gateway_state(StageState(row.state), way).value
        counts = [server_count(row, model) for model in models]
        known = [workloads.get(model.id) for model in models]
        ready = [0 if workload is None else workload.ready_count_of(workload.spec.instances) for workload in known]
        model_outs = [
            self._model(model, row, project, url, deploy_status, (ready_count, count), known_models, len(models))
            for model, ready_count, count in zip(models, ready, counts, strict=True)
        ]
        return EndpointStageOut.model_validate(
            {
                **_shared(row, project),
                "endpoint_stage_id": row.id,
                "endpoint_stage_name": row.name,
                "endpoint_id": row.endpoint_id,
                "endpoint_stage_status_code": row.state,
                "apigw_stage_id": row.id,
                "apigw_stage_name": row.name,
                "apigw_stage_url": url,
                "deploy_status": deploy_status,
                "is_default_stage": row.is_default,
                "default_stage": row.is_default,
                "flavor": None if flavor is None else flavor_out(flavor),
                "node_count": max(counts, default=0),
                "pod_count": sum(counts),
                "running_node_count": max(ready, default=0),
                "running_pod_count": sum(ready),
                "auto_scaler": auto_scaler_of(spec.scaling),
                "endpoint_model_list": model_outs,
                "last_log_lines": list(status.last_lines),
            }
        )

    def _model(
        self,
        row: EndpointModelRow,
        stage: StageRow,
        project: Project,
        url: str,
        deploy_status: str,
        counts: tuple[int, int],
        known_models: Mapping[str, ModelOut],
        model_count: int,
    ) -> EndpointModelOut:
        spec = EndpointModelSpec.model_validate(row.spec)
        scaling = StageSpec.model_validate(stage.spec).scaling
        path = resource_path(spec, model_count) or f"/v1/models/{spec.model_name}/predict"
        return EndpointModelOut.model_validate(
            {
                **_shared(row, project),
                "endpoint_model_id": row.id,
                "endpoint_id": row.endpoint_id,
                "endpoint_stage_id": row.stage_id,
                "endpoint_model_status_code": row.state,
                "model_id": row.model_id,
                "model": known_models.get(row.model_id),
                "image_id": spec.image_id,
                "stage": EndpointModelStage(stage_id=stage.id, deploy_status=deploy_status, stage_url=url),
                "running_pod_count": counts[0],
                "pod_count": counts[1],
                **({} if scaling is None else _scaled_by(spec, scaling)),
                "serving_options": spec.serving,
                "resource_option_detail": spec.share,
                "apigw_resource_uri": spec.resource_path,
                "apigw_endpoint_uri": f"https://{url}{path}",
            }
        )


def stage_addresses(
    stage: StageRow,
    models: Sequence[EndpointModelRow],
    workloads: Mapping[str, Workload],
    waiting_socket: Callable[[str], str],
) -> dict[str, tuple[str, ...]]:
    """Where the requests of each model on a stage go now; nowhere for one that no request may wait for and that has no server."""
    may = may_wait(StageSpec.model_validate(stage.spec), StageStatus.model_validate(stage.status))
    return {
        model.id: addresses_of(
            workloads.get(model.id), server_count(stage, model), waiting_socket(model.id) if may else None
        )
        for model in models
    }


def server_count(stage: StageRow, model: EndpointModelRow) -> int:
    """How many servers a model on a stage is to have."""
    status = EndpointModelStatus.model_validate(model.status)
    spec = EndpointModelSpec.model_validate(model.spec)
    return model_server_count(StageSpec.model_validate(stage.spec), spec, status)


def settings_out(route: Route, settings: StageSettings, configuration: str | None) -> StageGatewaySettings:
    """A stage's route in wire form, with what the gateway says of it."""
    spec = route.spec
    return StageGatewaySettings(
        endpoint_stage_id=route.id,
        deploy_status_code=_state_of(StageState.ACTIVE, route).value,
        status_message=route.message,
        prefix=spec.prefix,
        timeout_seconds=spec.timeout_seconds,
        max_body_bytes=spec.max_body_bytes,
        settings=settings,
        word_list=words_of(spec),
        rule_list=[
            GatewayRule(
                path=spec.prefix + rule.path,
                matches="everything below" if rule.is_prefix else "exactly",
                method_list=list(rule.methods),
                endpoint_model_id_list=list(rule.upstreams),
            )
            for rule in spec.rules
        ],
        upstream_list=[
            GatewayUpstream(
                endpoint_model_id=upstream.name, weight=upstream.weight, address_list=list(upstream.addresses)
            )
            for upstream in spec.upstreams
        ],
        configuration=None if configuration is None else json.loads(configuration),
    )


def endpoint_prefix(service_id: str) -> str:
    """The path at the gateway that an endpoint lives under; its default stage answers there."""
    return f"/gateway/{service_id}"


def stage_prefix(service_id: str, stage: StageRow) -> str:
    """The path at the gateway that this stage lives under, whatever the default one is.

    The first stage's name, `default`, is a name for whichever stage is the default one, so that stage itself needs another path.
    """
    own = f"{stage.name}.{stage.id}" if stage.name == DEFAULT_STAGE_NAME else stage.name
    return f"{endpoint_prefix(service_id)}/{own}"


def public_path(service_id: str, stage: StageRow) -> str:
    """The path that people are told: `…/default` for the first stage while it is the default one, the stage's own otherwise."""
    if stage.is_default and stage.name == DEFAULT_STAGE_NAME:
        return f"{endpoint_prefix(service_id)}/{DEFAULT_STAGE_NAME}"
    return stage_prefix(service_id, stage)


def gateway_state(stage: StageState, way: Sequence[Route | None]) -> GatewayState:
    """What is seen of a stage at the gateway. Its way is its own route and, for the default stage, the endpoint's: the worst of them tells."""
    states = [_state_of(stage, route) for route in way]
    return next((state for state in states if state is not GatewayState.ACTIVE), GatewayState.ACTIVE)


def _state_of(stage: StageState, route: Route | None) -> GatewayState:
    if route is None:
        if stage in (StageState.CREATE_REQUESTED, StageState.CREATE_IN_PROGRESS):
            return GatewayState.CREATE_IN_PROGRESS
        return GatewayState.NOT_FOUND_STAGE
    match route.state:
        case RouteState.ACTIVE:
            return GatewayState.ACTIVE if route.is_current else GatewayState.STAGE_DEPLOYING
        case RouteState.PENDING:
            return GatewayState.STAGE_DEPLOYING
        case RouteState.FAILED:
            return GatewayState.STAGE_DEPLOY_FAIL
        case RouteState.NOT_FOUND:
            return GatewayState.NOT_FOUND_STAGE


def _scaled_by(spec: EndpointModelSpec, scaling: Scaling) -> dict[str, object]:
    metric, target = metric_of(spec, scaling)
    return {"pod_auto_scale_enable": True, "scale_metric_code": metric, "scale_metric_target": target}


def _shared(row: EndpointRow | StageRow | EndpointModelRow, project: Project) -> dict[str, object]:
    return {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "app_key": project.app_key,
        "tag_list": row.tags,
        "status_reason": row.reason,
        "status_message": row.message,
        "created_datetime": row.created_at,
        "updated_datetime": row.updated_at,
    }
