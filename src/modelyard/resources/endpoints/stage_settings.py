"""Wire shapes of what a stage's address at the gateway asks of requests, and of an endpoint's API keys.

Each setting is small and apart from the others. One that is absent in a change stays as it is; null takes it away.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from modelyard.wire import Header, Moment, Name, NoneAsEmpty, Wire

MAX_API_KEYS = 100
_HOST = r"(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]"
_ORIGIN = re.compile(rf"\*|https?://(?:{_HOST})(?::[0-9]{{1,5}})?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_Texts = Annotated[list[str], NoneAsEmpty, Field(max_length=100)]


class RateLimit(Wire):
    """At most so many requests in so many seconds; what is over is answered 429 and told when to try again."""

    requests: int = Field(ge=1, le=10_000_000)
    seconds: int = Field(default=1, ge=1, le=86_400)


class CorsSettings(Wire):
    """What pages of other origins may do. `*` among the origins stands for all, `https://*.example.com` for what is below a name."""

    allow_origin_list: Annotated[list[str], Field(min_length=1, max_length=100)]
    allow_method_list: Annotated[list[str], Field(min_length=1, max_length=7)] = ["GET", "POST", "OPTIONS"]
    allow_header_list: _Texts = ["content-type", "x-api-key"]
    expose_header_list: _Texts = []
    allow_credentials: bool = False
    max_age_seconds: int = Field(default=600, ge=0, le=86_400)

    @field_validator("allow_origin_list")
    @classmethod
    def _check_origins(cls, value: list[str]) -> list[str]:
        if wrong := [origin for origin in value if not _ORIGIN.fullmatch(origin)]:
            raise ValueError(
                f"'{wrong[0]}' is not an origin such as https://app.example.com (no path, no '/' at its end)"
            )
        return [origin.lower() for origin in value]

    @field_validator("allow_method_list")
    @classmethod
    def _check_methods(cls, value: list[str]) -> list[str]:
        if wrong := [method for method in value if method.upper() not in _METHODS]:
            raise ValueError(f"'{wrong[0]}' is not one of {', '.join(_METHODS)}")
        return list(dict.fromkeys(method.upper() for method in value))

    @field_validator("allow_header_list", "expose_header_list")
    @classmethod
    def _check_headers(cls, value: list[str]) -> list[str]:
        if wrong := [name for name in value if not _TOKEN.fullmatch(name)]:
            raise ValueError(f"'{wrong[0]}' is not the name of a header")
        return list(dict.fromkeys(name.lower() for name in value))

    @model_validator(mode="after")
    def _check_credentials(self) -> CorsSettings:
        if self.allow_credentials and "*" in self.allow_origin_list:
            raise ValueError(
                "allowCredentials with the origin '*' would let every page act for its visitor; name origins"
            )
        return self


class MirrorSettings(Wire):
    """Another stage of the endpoint gets a copy of so many percent of the requests; its answers go nowhere."""

    endpoint_stage_id: str
    percent: float = Field(default=100.0, ge=0.01, le=100.0)


class StageSettings(Wire):
    """What a stage's address asks of requests.

    Attributes:
        max_body_bytes: a larger request is answered 413; absent: the platform's own limit.
        timeout_seconds: an answer that takes longer is answered 504; absent: the model servers' deadline and 5 s.
        idle_timeout_seconds: a request or answer of which nothing arrives for so long is given up.
        is_api_key_required: a request needs one of the endpoint's API keys in the header `x-api-key`, else it is answered 401.
        rate_limit: of all requests to the stage together.
        key_rate_limit: of the requests with one API key; a key may have a limit of its own instead.
        allow_address_list: networks (CIDR) or addresses that clients must come from, else 403; none means anywhere.
        mirror: see `MirrorSettings`.
    """

    max_body_bytes: int | None = Field(default=None, ge=1)
    timeout_seconds: float | None = Field(default=None, ge=0.1, le=3600.0)
    idle_timeout_seconds: float | None = Field(default=None, ge=0.1, le=3600.0)
    cors: CorsSettings | None = None
    is_api_key_required: bool = False
    rate_limit: RateLimit | None = None
    key_rate_limit: RateLimit | None = None
    allow_address_list: _Texts = []
    mirror: MirrorSettings | None = None

    @field_validator("is_api_key_required", mode="before")
    @classmethod
    def _none_as_false(cls, value: object) -> object:
        return False if value is None else value

    @field_validator("allow_address_list")
    @classmethod
    def _check_networks(cls, value: list[str]) -> list[str]:
        networks: list[str] = []
        for text in value:
            try:
                networks.append(str(ipaddress.ip_network(text)))
            except ValueError as cause:
                raise ValueError(f"'{text}' is no network such as 203.0.113.0/24 or 2001:db8::/32: {cause}") from cause
        return list(dict.fromkeys(networks))


class StageSettingsOut(Wire):
    """A stage's settings. `isDeployed`: the gateway keeps them already."""

    endpoint_stage_id: str
    is_deployed: bool
    settings: StageSettings


class StageSettingsOne(Wire):
    """`GET` and `PUT /endpoint-stages/{id}/settings`."""

    header: Header = Header()
    stage_settings: StageSettingsOut


class ApiKeyCreate(Wire):
    """`POST /endpoints/{id}/api-keys`. `rateLimit` holds instead of a stage's `keyRateLimit`."""

    name: Name
    rate_limit: RateLimit | None = None


class ApiKeyOut(Wire):
    """An API key of an endpoint. `apiKey` is what to send in the header `x-api-key`; it is told once, when the key is made.

    `lastUsedDatetime` and `callsCount` follow within 10 seconds or so.
    """

    api_key_id: str
    endpoint_id: str
    name: str
    rate_limit: RateLimit | None = None
    created_datetime: Moment
    created_by: str | None = None
    last_used_datetime: Moment | None = None
    calls_count: int = 0
    api_key: str | None = None


class ApiKeyOne(Wire):
    """One API key."""

    header: Header = Header()
    api_key: ApiKeyOut


class ApiKeyList(Wire):
    """`GET /endpoints/{id}/api-keys`, oldest first."""

    header: Header = Header()
    api_key_list: list[ApiKeyOut]
