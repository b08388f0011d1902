"""What endpoints and stages are asked to be, and what is seen of them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

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


class StageSpec(_Frozen):
    """What a stage runs on."""

    flavor_id: str
    flavor_name: str
    node_count: int = 1
    use_log: bool = False


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
    """A model on a stage, with all that serving it needs, so that a changed model or catalogue doesn't change what runs."""

    model_id: str
    model_name: str
    format_code: str
    artifact_uri: str
    image_id: str
    resource_path: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    serving: ServingOptions = ServingOptions()
