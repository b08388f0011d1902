"""What is looked at before an endpoint or a stage is made: everything that can be known to fail is told at once, each by its field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.db.engine import Database
from modelyard.kit.errors import Fault, Invalid
from modelyard.resources.endpoints.instances import ServingSettings, model_paths, part_of
from modelyard.resources.endpoints.model import DEFAULT_STAGE_NAME, EndpointModelSpec
from modelyard.resources.endpoints.opening import body_limit_faults
from modelyard.resources.endpoints.resource_option import share_faults
from modelyard.resources.endpoints.schemas import EndpointCreate, EndpointModelCreate, EndpointStageCreate
from modelyard.resources.endpoints.stage_settings import StageSettings
from modelyard.resources.flavors.errors import UnknownFlavor
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.errors import NoServingImage
from modelyard.resources.images.service import Images
from modelyard.resources.models.lifecycle import ModelState
from modelyard.resources.models.model import Model
from modelyard.resources.models.schemas import ServingOptions
from modelyard.resources.models.service import Models
from modelyard.resources.projects.model import Caller
from modelyard.resources.storages.errors import StoragePathFault
from modelyard.resources.storages.model import COPY_SCHEME
from modelyard.resources.storages.service import Storages
from modelyard.resources.workloads.errors import NeverFits
from modelyard.resources.workloads.service import Workloads


@dataclass(frozen=True, slots=True)
class GatewayQuota:
    """How much of the gateway a project may have. A service is an endpoint, a resource a model on one of its stages, with the paths that it has."""

    services: int = 100
    stages_per_service: int = 10
    resources_per_service: int = 100


class StagePreflight:
    """Checks requests for stages."""

    def __init__(
        self,
        database: Database,
        models: Models,
        images: Images,
        flavors: Flavors,
        storages: Storages,
        workloads: Workloads,
        serving: ServingSettings,
    ) -> None:
        self._database = database
        self._models = models
        self._images = images
        self._flavors = flavors
        self._storages = storages
        self._workloads = workloads
        self._serving = serving

    async def check(
        self, caller: Caller, request: EndpointCreate | EndpointStageCreate
    ) -> tuple[Flavor, list[EndpointModelSpec]]:
        """The flavor and the models of a request. Raises `Invalid` with every fault that there is."""
        faults: list[Fault] = []
        flavor: Flavor | None = None
        try:
            flavor = self._flavors.get(request.flavor_id)
            options = [item.resource_option_detail for item in request.endpoint_model_resource_list]
            faults.extend(share_faults(options, flavor.name, flavor.vcpus, flavor.memory_bytes))
            parts = [part_of(flavor, option) for option in options]
            cpus, memory_bytes = sum(part[0] for part in parts), sum(part[1] for part in parts)
            count = max(
                first_count(request), *(_own_count(request, item) or 1 for item in request.endpoint_model_resource_list)
            )
            await self._workloads.check_ever_fits(cpus, memory_bytes, flavor.gpus * len(parts), count)
        except (UnknownFlavor, NeverFits) as fault:
            faults.extend(fault.faults)
        specs: list[EndpointModelSpec] = []
        paths: set[str] = set()
        for index, item in enumerate(request.endpoint_model_resource_list):
            field = f"endpointModelResourceList[{index}]"
            spec = await self._check_model(caller, item, field, faults)
            spec = None if spec is None else spec.model_copy(update={"count": _own_count(request, item)})
            if spec is not None:
                specs.append(spec)
            if item.apigw_resource_uri is not None:
                if item.apigw_resource_uri in paths:
                    faults.append(Fault(f"{field}.apigwResourceUri", "is used by another model of this stage"))
                paths.add(item.apigw_resource_uri)
        names = [spec.model_name for spec in specs]
        faults.extend(_path_faults(request, names))
        if len(set(names)) != len(names):
            faults.append(Fault("endpointModelResourceList", "two models of one stage can't have the same name"))
        if request.stage_settings is not None:
            faults.extend(self._settings_faults(request.stage_settings))
        if faults or flavor is None:
            raise Invalid(faults)
        return flavor, specs

    def _settings_faults(self, settings: StageSettings) -> list[Fault]:
        faults = body_limit_faults(settings, self._serving, "stageSettings.")
        if settings.mirror is not None:
            faults.append(Fault("stageSettings.mirror", "can be set once the stage is there: its models are compared"))
        return faults

    async def _check_model(
        self, caller: Caller, item: EndpointModelCreate, field: str, faults: list[Fault]
    ) -> EndpointModelSpec | None:
        async with self._database.read() as session:
            model = await self._models.find(session, caller.project.id, item.model_id)
        if model is None:
            faults.append(Fault(f"{field}.modelId", f"there is no model '{item.model_id}' in this project"))
            return None
        try:
            if model.state == ModelState.CREATE_FAILED:
                faults.append(Fault(f"{field}.modelId", f"'{model.name}' can't be served: {model.message}"))
                return None
            if model.source_uri.startswith(COPY_SCHEME):
                await self._storages.check_copy(caller.project, model.source_uri)
            else:
                await self._storages.check_readable(caller.project, model.source_uri)
            return self._model_spec(model, item)
        except StoragePathFault as fault:
            faults.append(Fault(f"{field}.modelId", f"the artifact of '{model.name}' can't be read: {fault.message}"))
        except NoServingImage as fault:
            faults.append(Fault(f"{field}.modelId", fault.faults[0].message))
        return None

    def _model_spec(self, model: Model, item: EndpointModelCreate) -> EndpointModelSpec:
        image = self._images.for_serving(model.spec.format_code, model.framework_version)
        return EndpointModelSpec(
            model_id=model.id,
            model_name=model.name,
            format_code=model.spec.format_code,
            artifact_uri=model.source_uri,
            image_id=image.id,
            resource_path=item.apigw_resource_uri,
            parameters=tuple((parameter.name, parameter.value) for parameter in model.spec.parameters),
            serving=item.serving_options or ServingOptions(),
            metric=item.scale_metric_code if item.pod_auto_scale_enable else None,
            target=item.scale_metric_target if item.pod_auto_scale_enable else None,
            share=item.resource_option_detail,
        )


def _path_faults(request: EndpointCreate | EndpointStageCreate, names: Sequence[str]) -> list[Fault]:
    """Resource paths that already mean something: they would take the requests of another model, or be the stage's own address."""
    faults: list[Fault] = []
    for index, item in enumerate(request.endpoint_model_resource_list):
        path, field = item.apigw_resource_uri, f"endpointModelResourceList[{index}].apigwResourceUri"
        if path is None:
            continue
        if f"{path}/".startswith(f"/{DEFAULT_STAGE_NAME}/"):
            faults.append(
                Fault(field, f"'/{DEFAULT_STAGE_NAME}' is the address of the default stage; choose another path")
            )
        taken = next((name for name in names if any(_is_below(path, own) for own in model_paths(name))), None)
        if taken is not None:
            faults.append(Fault(field, f"is among the paths that the model '{taken}' has anyway; choose another path"))
    return faults


def _is_below(path: str, other: str) -> bool:
    return path == other or path.startswith((other + "/", other + ":"))


def _own_count(request: EndpointCreate | EndpointStageCreate, item: EndpointModelCreate) -> int | None:
    """How many servers a model asks for itself; a stage that scales does not listen to that."""
    return None if request.auto_scaler is not None and request.auto_scaler.enable else item.pod_count


def first_count(request: EndpointCreate | EndpointStageCreate) -> int:
    """How many servers each model has at first: as asked for, within what its autoscaler allows, and at least one, to see that it can be served."""
    scaler = request.auto_scaler
    if scaler is None or not scaler.enable:
        return request.node_count
    return max(1, scaler.min_node_count, min(request.node_count, scaler.max_node_count))
