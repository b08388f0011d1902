"""What endpoints and stages are asked to be, and what is seen of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from modelyard.resources.endpoints.resource_option import ResourceOption
from modelyard.resources.endpoints.stage_settings import StageSettings
from modelyard.resources.models.schemas import ServingOptions

ENDPOINT_KIND = "endpoint"
STAGE_KIND = "endpoint_stage"
DEFAULT_STAGE_NAME = "default"
GONE_FROM_GATEWAY = "GONE_FROM_GATEWAY"
GATEWAY_REFUSED = "GATEWAY_REFUSED"
"""Reasons of a stage that the gateway does not lead to."""
DEFAULT_RESOURCE_PATH = "/inference"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Share(_Frozen):
    """A stage's part of an endpoint's requests: its weight among the weights of all."""

    stage_id: str
    weight: int = 1


class Former(_Frozen):
    """The stage that was the default one before: kept until `until` so that the change can be taken back, then deleted."""

    stage_id: str
    until: datetime


class EndpointSpec(_Frozen):
    """`service_id` names the endpoint in its URLs.

    Attributes:
        shares: how the endpoint's requests are spread over stages; empty: all go to the default stage.
        former: see `Former`.
    """

    service_id: str
    shares: tuple[Share, ...] = ()
    former: Former | None = None

    @property
    def is_former_in_use(self) -> bool:
        """Whether a part of the requests was given to the former default stage again: then it stays, whatever its time."""
        former = self.former
        return former is not None and any(share.weight for share in self.shares if share.stage_id == former.stage_id)


class Metric(StrEnum):
    """What the number of model servers follows."""

    CONCURRENCY = "CONCURRENCY"
    REQUESTS_PER_SECOND = "REQUESTS_PER_SECOND"
    CPU_UTILIZATION = "CPU_UTILIZATION"
    MEMORY_UTILIZATION = "MEMORY_UTILIZATION"


MIRRORED = "_mirrored"
"""What the names of upstreams that get copies end with; before it stands the id of the endpoint model."""
HOLD_SECONDS = 60.0
"""How long a request may wait for a model that rests."""
DEFAULT_TARGETS: Mapping[Metric, float] = {
    Metric.CONCURRENCY: 8.0,
    Metric.REQUESTS_PER_SECOND: 100.0,
    Metric.CPU_UTILIZATION: 70.0,
    Metric.MEMORY_UTILIZATION: 80.0,
}
"""The load that one model server is to have: requests at once, requests per second, percent of what the flavor gives."""


class Scaling(_Frozen):
    """How the number of model servers of each model follows its load.

    Attributes:
        min_count: 0 lets a model rest that nobody has asked for `idle_seconds`.
        metric, target: the load that one server is to have, where the model itself says nothing else.
        threshold_percent: servers go when the load is below this part of the target for `unneeded_seconds`, and not within
            `delay_after_add_seconds` after others were added.
    """

    min_count: int = 1
    max_count: int = 1
    metric: Metric = Metric.CONCURRENCY
    target: float = DEFAULT_TARGETS[Metric.CONCURRENCY]
    scales_down: bool = True
    threshold_percent: float = 50.0
    unneeded_seconds: float = 600.0
    delay_after_add_seconds: float = 600.0
    idle_seconds: float = 300.0


class StageSpec(_Frozen):
    """What a stage runs on, and what it asks of requests. `node_count` model servers for each model; with `scaling`, so many at the beginning."""

    flavor_id: str
    flavor_name: str
    node_count: int = 1
    use_log: bool = False
    scaling: Scaling | None = None
    settings: StageSettings = StageSettings()


class StageStatus(_Frozen):
    """What was seen. `was_deployed`: it has answered requests once, so a failure now is one of deployment, not of creation."""

    was_deployed: bool = False
    last_lines: tuple[str, ...] = ()


class ServedModel(_Frozen):
    """A model that answered requests of an endpoint."""

    endpoint_model_id: str
    model_id: str
    model_name: str
    artifact_uri: str


class ServingStage(_Frozen):
    """A stage that answered requests of an endpoint, with its weight and its models."""

    stage_id: str
    stage_name: str
    weight: int
    models: tuple[ServedModel, ...]


class EndpointStatus(_Frozen):
    """What was seen: the stages that the gateway spreads the endpoint's requests over, since the newest record of it."""

    traffic: tuple[ServingStage, ...] = ()


class EndpointModelSpec(_Frozen):
    """A model on a stage, with all that serving it needs, so that a changed model or catalogue doesn't change what runs.

    Attributes:
        share: the part of the stage's flavor that each of its servers gets; None: all of it.
        count: how many servers it was asked to have (`podCount`); None: as many as the stage says. A stage that scales decides by itself.
    """

    model_id: str
    model_name: str
    format_code: str
    artifact_uri: str
    image_id: str
    resource_path: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    serving: ServingOptions = ServingOptions()
    metric: Metric | None = None
    target: float | None = None
    share: ResourceOption | None = None
    count: int | None = None


class EndpointModelStatus(_Frozen):
    """What was decided for a model on a stage. `count`: how many model servers it is to have; None: as many as the stage's nodes."""

    count: int | None = None


def metric_of(model: EndpointModelSpec, scaling: Scaling) -> tuple[Metric, float]:
    """What the number of a model's servers follows, and the load that one is to have."""
    if model.metric is None:
        return scaling.metric, scaling.target
    return model.metric, model.target or DEFAULT_TARGETS[model.metric]


def waiting_seconds(stage: StageSpec) -> float:
    """How long a request may wait for a model of the stage that rests; 0 where none may rest."""
    return HOLD_SECONDS if stage.scaling is not None and stage.scaling.min_count == 0 else 0.0


def may_wait(stage: StageSpec, status: StageStatus) -> bool:
    """Whether requests wait while no model server is ready, instead of being answered 503."""
    return stage.scaling is not None and stage.scaling.min_count == 0 and status.was_deployed


def model_server_count(stage: StageSpec, model: EndpointModelSpec, status: EndpointModelStatus) -> int:
    """How many servers a model on a stage is to have now."""
    decided = model.count if stage.scaling is None else status.count
    return stage.node_count if decided is None else decided
