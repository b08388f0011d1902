"""Wire shapes of endpoints, stages and the models on them.

A body names its models as a list (`endpointModelResourceList`) or, in the clients up to 1.1.0, flat (`modelId` and `apigwResourceUri`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, field_validator, model_validator

from modelyard.easymaker import STAGE, as_newest, with_auto_scaler, with_model_list
from modelyard.resources.endpoints.model import DEFAULT_TARGETS, Metric, Scaling
from modelyard.resources.endpoints.resource_option import ResourceOption
from modelyard.resources.endpoints.stage_settings import StageSettings
from modelyard.resources.flavors.schemas import FlavorOut
from modelyard.resources.models.schemas import ModelOut, ServingOptions
from modelyard.wire import (
    Change,
    Description,
    Header,
    Moment,
    Name,
    NoneAsEmpty,
    Paging,
    ResourceOut,
    Tags,
    Wire,
)

MAX_NODES = 10
MAX_MODELS_PER_STAGE = 10
MAX_SHARES = 10
MAX_KEEP_MINUTES = 7 * 24 * 60
_RESOURCE_PATH = re.compile(r"/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-]")
_STAGE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,28}[a-z0-9])?")


class EndpointModelCreate(Wire):
    """A model to deploy on a stage, with the path that it answers on."""

    model_id: str
    apigw_resource_uri: str | None = Field(default=None, max_length=255)
    pod_count: int | None = Field(default=None, ge=1, le=100)
    description: Description = None
    serving_options: ServingOptions | None = None
    resource_option_detail: ResourceOption | None = None
    pod_auto_scale_enable: bool | None = None
    scale_metric_code: Metric | None = None
    scale_metric_target: float | None = Field(default=None, gt=0, le=1_000_000, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_metric(self) -> EndpointModelCreate:
        if self.pod_auto_scale_enable and self.scale_metric_code is None and self.scale_metric_target is not None:
            raise ValueError("scaleMetricTarget says nothing without scaleMetricCode")
        return self

    @field_validator("apigw_resource_uri")
    @classmethod
    def _check_path(cls, value: str | None) -> str | None:
        if value is None or value == "":
            return None
        if not _RESOURCE_PATH.fullmatch(value) or "//" in value or "/." in value:
            raise ValueError("must begin with '/' and consist of letters, digits, '-', '_', '.', '~' and single '/'")
        return value


class AutoScaler(Wire):
    """How the number of model servers (`nodeCount`) follows what is asked of them: `PUT /endpoint-stages/{id}/auto-scaler`.

    Attributes:
        min_node_count: 0 lets a model rest that nobody has asked for `idle_seconds`; the next request waits for its start.
        scale_down_util_thresh_percentage, scale_down_unneeded_minute: servers go when the load is below this part of the target for so long;
        scale_down_delay_after_add_minute: and not so soon after others were added.
        metric_code, metric_target: the load that one server is to have, for models that say nothing else.
    """

    enable: bool = False
    min_node_count: int = Field(default=1, ge=0, le=MAX_NODES)
    max_node_count: int = Field(default=MAX_NODES, ge=1, le=MAX_NODES)
    scale_down_enable: bool = True
    scale_down_util_thresh_percentage: int = Field(default=50, ge=0, le=100)
    scale_down_unneeded_minute: int = Field(default=10, ge=0, le=1440)
    scale_down_delay_after_add_minute: int = Field(default=10, ge=0, le=1440)
    metric_code: Metric = Metric.CONCURRENCY
    metric_target: float | None = Field(default=None, gt=0, le=1_000_000, allow_inf_nan=False)
    idle_seconds: int = Field(default=300, ge=1, le=7 * 24 * 3600)

    @model_validator(mode="after")
    def _check_order(self) -> AutoScaler:
        if self.min_node_count > self.max_node_count:
            raise ValueError(
                f"minNodeCount ({self.min_node_count}) must not be above maxNodeCount ({self.max_node_count})"
            )
        return self

    def scaling(self) -> Scaling | None:
        """The same in the stage's own words."""
        if not self.enable:
            return None
        return Scaling(
            min_count=self.min_node_count,
            max_count=self.max_node_count,
            metric=self.metric_code,
            target=self.metric_target or DEFAULT_TARGETS[self.metric_code],
            scales_down=self.scale_down_enable,
            threshold_percent=self.scale_down_util_thresh_percentage,
            unneeded_seconds=60.0 * self.scale_down_unneeded_minute,
            delay_after_add_seconds=60.0 * self.scale_down_delay_after_add_minute,
            idle_seconds=self.idle_seconds,
        )


def auto_scaler_of(scaling: Scaling | None) -> AutoScaler:
    """A stage's own words on the wire."""
    if scaling is None:
        return AutoScaler()
    return AutoScaler(
        enable=True,
        min_node_count=scaling.min_count,
        max_node_count=scaling.max_count,
        scale_down_enable=scaling.scales_down,
        scale_down_util_thresh_percentage=round(scaling.threshold_percent),
        scale_down_unneeded_minute=round(scaling.unneeded_seconds / 60),
        scale_down_delay_after_add_minute=round(scaling.delay_after_add_seconds / 60),
        metric_code=scaling.metric,
        metric_target=scaling.target,
        idle_seconds=round(scaling.idle_seconds),
    )


class _StageFields(Wire):
    stage_settings: StageSettings | None = None
    description: Description = None
    tag_list: Tags = []
    flavor_id: str
    node_count: int = Field(default=1, ge=1, le=MAX_NODES)
    endpoint_model_resource_list: Annotated[
        list[EndpointModelCreate], NoneAsEmpty, Field(min_length=1, max_length=MAX_MODELS_PER_STAGE)
    ]
    use_log: bool = False
    auto_scaler: AutoScaler | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_older_forms(cls, value: Any) -> Any:
        return with_auto_scaler(with_model_list(as_newest(value, STAGE)))

    @field_validator("use_log", mode="before")
    @classmethod
    def _none_as_false(cls, value: Any) -> Any:
        return False if value is None else value


class EndpointCreate(_StageFields):
    """`POST /endpoints`: a new endpoint with its default stage."""

    endpoint_name: Name


class EndpointStageCreate(_StageFields):
    """`POST /endpoint-stages`: one more stage of an endpoint."""

    endpoint_id: str
    apigw_stage_name: str

    @field_validator("apigw_stage_name")
    @classmethod
    def _check_stage_name(cls, value: str) -> str:
        if not _STAGE_NAME.fullmatch(value):
            raise ValueError("must have 1 to 30 characters of a-z, 0-9 and '-', and neither begin nor end with '-'")
        return value


class EndpointModelStage(Wire):
    """The gateway's view of the stage of an endpoint model."""

    stage_id: str
    deploy_status: str
    stage_url: str


class EndpointModelOut(ResourceOut):
    """A model on a stage."""

    endpoint_model_id: str
    endpoint_id: str
    endpoint_stage_id: str
    endpoint_model_status_code: str
    model_id: str
    model: ModelOut | None = None
    image_id: str | None = None
    stage: EndpointModelStage
    running_pod_count: int
    pod_count: int
    pod_auto_scale_enable: bool = False
    scale_metric_code: Metric | None = None
    scale_metric_target: float | None = None
    serving_options: ServingOptions = ServingOptions()
    resource_option_detail: ResourceOption | None = None
    apigw_resource_uri: str | None = None
    apigw_endpoint_uri: str


class EndpointStageOut(ResourceOut):
    """A stage. Whether it is the default one stands under both spellings that clients read."""

    endpoint_stage_id: str
    endpoint_stage_name: str
    endpoint_id: str
    endpoint_stage_status_code: str
    apigw_stage_id: str
    apigw_stage_name: str
    apigw_stage_url: str
    deploy_status: str
    is_default_stage: bool
    default_stage: bool
    flavor: FlavorOut | None = None
    node_count: int
    pod_count: int
    running_node_count: int
    running_pod_count: int
    auto_scaler: AutoScaler = AutoScaler()
    endpoint_model_list: list[EndpointModelOut]
    last_log_lines: list[str] = []


class EndpointOut(ResourceOut):
    """An endpoint."""

    endpoint_id: str
    endpoint_name: str
    endpoint_status_code: str
    apigw_app_key: str
    apigw_region: str
    apigw_service_id: str
    apigw_status_code: str
    default_stage_url: str | None = None
    endpoint_url: str
    former_default_stage_id: str | None = None
    revertible_until_datetime: Moment | None = None
    traffic_share_list: list[TrafficShare] = []
    endpoint_stage_list: list[EndpointStageOut]


class EndpointList(Wire):
    """`GET /endpoints`."""

    header: Header = Header()
    endpoint_list: list[EndpointOut]
    paging: Paging


class EndpointOne(Wire):
    """One endpoint."""

    header: Header = Header()
    endpoint: EndpointOut


class EndpointStageList(Wire):
    """`GET /endpoint-stages`."""

    header: Header = Header()
    endpoint_stage_list: list[EndpointStageOut]
    paging: Paging


class EndpointStageOne(Wire):
    """One stage."""

    header: Header = Header()
    endpoint_stage: EndpointStageOut


class EndpointModelList(Wire):
    """`GET /endpoint-models`."""

    header: Header = Header()
    endpoint_model_list: list[EndpointModelOut]
    paging: Paging


class EndpointModelOne(Wire):
    """One model on a stage."""

    header: Header = Header()
    endpoint_model: EndpointModelOut


class EndpointChange(Change):
    """`PUT /endpoints/{id}`: fields that are absent stay as they are."""

    name: Name | None = Field(default=None, alias="endpointName")


class DefaultStageChange(Wire):
    """`PUT /endpoints/{id}/default-stage`. The stage that was the default one is deleted after `keepMinutes`; until then this can be reverted.

    A stage that asks for less than the default one (no API key, no list of addresses) takes over only with `isWeakerAllowed`.
    """

    endpoint_stage_id: str
    keep_minutes: int = Field(default=0, ge=0, le=MAX_KEEP_MINUTES)
    is_weaker_allowed: bool = False


class TrafficShare(Wire):
    """A stage and its weight among the weights of all."""

    endpoint_stage_id: str
    weight: int = Field(ge=0, le=1000)


class TrafficChange(Wire):
    """`PUT /endpoints/{id}/traffic`. An empty list: all requests go to the default stage."""

    share_list: Annotated[list[TrafficShare], NoneAsEmpty, Field(max_length=MAX_SHARES)] = []


class TrafficModel(Wire):
    """A model that answered."""

    endpoint_model_id: str
    model_id: str
    model_name: str
    model_upload_uri: str


class TrafficStage(Wire):
    """A stage that answered, with its weight."""

    endpoint_stage_id: str
    name: str
    weight: int
    model_list: list[TrafficModel]


class TrafficEntry(Wire):
    """From `since` until the next newer entry, the endpoint's requests went to these stages."""

    since: Moment
    stage_list: list[TrafficStage]


class TrafficHistory(Wire):
    """`GET /endpoints/{id}/traffic`, newest first."""

    header: Header = Header()
    traffic_list: list[TrafficEntry]


class GatewayRule(Wire):
    """A path that the gateway answers on, and the models that requests go to."""

    path: str
    matches: str
    method_list: list[str]
    endpoint_model_id_list: list[str]


class GatewayUpstream(Wire):
    """Where the requests of an endpoint model go: so many model servers, one address each."""

    endpoint_model_id: str
    weight: int
    address_list: list[str]


class StageGatewaySettings(Wire):
    """What is deployed for a stage: `wordList` says what it asks of requests in sentences.

    `configuration` is the gateway's own, as it has it now; absent when it has none.
    """

    endpoint_stage_id: str
    deploy_status_code: str
    status_message: str | None = None
    prefix: str
    timeout_seconds: float
    max_body_bytes: int | None = None
    settings: StageSettings
    word_list: list[str]
    rule_list: list[GatewayRule]
    upstream_list: list[GatewayUpstream]
    configuration: dict[str, Any] | None = None


class StageGatewaySettingsOne(Wire):
    """`GET /endpoint-stages/{id}/gateway-settings`."""

    header: Header = Header()
    gateway_settings: StageGatewaySettings


CALL_SERIES = ("ENDPOINT", "STAGE", "MODEL")


class StatisticsQuery(Wire):
    """What is asked of `GET /endpoints/{id}/statistics`.

    Attributes:
        series_list: of which series the points are told, beside the totals of all: `ENDPOINT`, `STAGE`, `MODEL` (the endpoint, all stages, all
            models), or ids of stages and models; none for all.
    """

    resolution_seconds: int = 60
    from_: AwareDatetime | None = None
    to: AwareDatetime | None = None
    series_list: list[str] = []


class CallCounts(Wire):
    """Calls in a span of time. `activeMax` is the most seen at once. Latencies are told to within an eighth or half a millisecond, whichever is
    more, since the gateway counts whole ones, and absent without calls.

    `mirroredCount` of the calls were copies of another stage's requests. What the gateway turned away is no call: `sizeRefusedCount` (413),
    `keyRefusedCount` (401), `addressRefusedCount` (403), `rateRefusedCount` (429).
    """

    calls_count: int
    success_count: int
    redirect_count: int
    client_error_count: int
    server_error_count: int
    timeout_count: int
    received_bytes: int
    sent_bytes: int
    mirrored_count: int = 0
    size_refused_count: int = 0
    key_refused_count: int = 0
    address_refused_count: int = 0
    rate_refused_count: int = 0
    active_max: int
    latency_p50_milliseconds: float | None = None
    latency_p90_milliseconds: float | None = None
    latency_p99_milliseconds: float | None = None


class CallPoint(CallCounts):
    """The span that begins at `time`."""

    time: Moment


class CallSeries(Wire):
    """Calls of an endpoint, of a stage, or of a model on a stage. Spans without calls are left out, and all points of series not asked for."""

    endpoint_id: str | None = None
    endpoint_stage_id: str | None = None
    endpoint_model_id: str | None = None
    total: CallCounts
    point_list: list[CallPoint]


class CallStatistics(Wire):
    """Calls of an endpoint over time, as a whole and by stage and model; stages that are gone are still in it."""

    resolution_seconds: int
    from_datetime: Moment
    to_datetime: Moment
    endpoint: CallSeries
    stage_list: list[CallSeries]
    model_list: list[CallSeries]


class CallStatisticsOne(Wire):
    """`GET /endpoints/{id}/statistics`."""

    header: Header = Header()
    statistics: CallStatistics
