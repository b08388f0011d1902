"""What endpoints and stages are asked to be, and what is seen of them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from modelyard.resources.models.schemas import ServingOptions

DEFAULT_STAGE_NAME = "default"
DEFAULT_RESOURCE_PATH = "/inference"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class EndpointSpec(_Frozen):
    """`service_id` names the endpoint in its URLs."""

    service_id: str


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
