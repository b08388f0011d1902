"""What a route is asked to be, and what is seen of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from modelyard.gateway.port import ApiKey, Conditions, Cors, Decisions, Rate, UpstreamStatistics
from modelyard.resources.routes.lifecycle import RouteState

__all__ = ["ApiKey", "Conditions", "Cors", "Decisions", "Rate"]  # the gateway's words, for the resources above
CallCounters = UpstreamStatistics
"""What the gateway has counted for an upstream, for the resources above, which don't know the gateway."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class MirrorSpec(_Frozen):
    """Who gets a copy of so many percent of a rule's requests (see `modelyard.gateway.port.Mirror`)."""

    upstream: str
    percent: float = 100.0


class RuleSpec(_Frozen):
    """One path of a route (see `modelyard.gateway.port.Rule`)."""

    path: str
    upstreams: tuple[str, ...]
    is_prefix: bool = False
    rewrite: str | None = None
    methods: tuple[str, ...] = ()
    mirrors: tuple[MirrorSpec, ...] = ()
    answer: str | None = None


class UpstreamSpec(_Frozen):
    """Processes that share the requests; addresses are paths of Unix sockets or `host:port`."""

    name: str
    addresses: tuple[str, ...]
    weight: int = 1
    max_requests: int | None = None


class AccessSpec(_Frozen):
    """Signed-in members of the project alone may pass (see `modelyard.gateway.port.Access`)."""

    project_id: str
    kind: str
    target_id: str


class RouteSpec(_Frozen):
    """What is to be reachable (see `modelyard.gateway.port.Route`)."""

    owner_kind: str
    owner_id: str
    title: str
    prefix: str
    rules: tuple[RuleSpec, ...]
    upstreams: tuple[UpstreamSpec, ...]
    timeout_seconds: float = 60.0
    max_body_bytes: int | None = None
    labels: dict[str, str] = {}
    host: str | None = None
    access: AccessSpec | None = None
    idle_seconds: float | None = None
    conditions: Conditions | None = None


class Route(_Frozen):
    """A route as others see it. It `is_current` when the gateway has taken the newest spec."""

    id: str
    spec: RouteSpec
    state: RouteState
    message: str | None
    is_current: bool
