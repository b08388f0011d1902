"""The contract between the platform and the gateway through which everything is reached.

A route is named by its id; putting it again with other content replaces it in one step, without a failed request. A gateway keeps
serving its last routes when the platform is away, and after its own restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Target:
    """One process that answers requests: a Unix socket's path or a `host:port` on this machine."""

    address: str

    @property
    def is_socket(self) -> bool:
        """Whether the address is the path of a Unix socket."""
        return self.address.startswith("/")


@dataclass(frozen=True, slots=True)
class Upstream:
    """Targets that share the requests (the one with the fewest in flight takes the next).

    Attributes:
        weight: counts among a rule's upstreams.
        max_requests: how many may be under way at once; what is over is turned away at once. None: as many as come.
    """

    name: str
    targets: tuple[Target, ...]
    weight: int = 1
    max_requests: int | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """An upstream that gets a copy of so many percent of a rule's requests. Nobody waits for its answers, and nobody gets them."""

    upstream: str
    percent: float = 100.0


@dataclass(frozen=True, slots=True)
class Rule:
    """One path of a route.

    Attributes:
        path: below the route's prefix, beginning with `/`.
        is_prefix: match everything that begins with `path` (`/` for all the rest) instead of just it.
        rewrite: what the target sees: instead of the whole matched path (exact rule), or instead of the route's prefix + `path` (prefix rule).
            None leaves the path as it came.
        methods: HTTP methods that match; none means all.
        mirrors: who gets copies.
        answer: what the gateway itself answers (200, JSON) instead of asking an upstream; such a rule names none.
    """

    path: str
    upstreams: tuple[str, ...]
    is_prefix: bool = False
    rewrite: str | None = None
    methods: tuple[str, ...] = ()
    mirrors: tuple[Mirror, ...] = ()
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `requests` in `seconds`, evenly filled up again; what is over is answered 429 with `Retry-After`."""

    requests: int
    seconds: int = 1


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that passes. A client sends base64 of `{id}:{secret}` in the header `x-api-key`.

    Attributes:
        id: letters and digits; the target is told it in `x-modelyard-api-key`.
        digest: base64 of the SHA-1 of the secret, which must be long and random: nothing else keeps it from being guessed.
        rate: instead of the conditions' `key_rate`.
    """

    id: str
    digest: str
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Cors:
    """What pages of other origins may do (https://fetch.spec.whatwg.org/#http-cors-protocol). Preflights are answered by the gateway.

    Attributes:
        origins: exact (`https://a.example`), with a first label left open (`https://*.a.example`), or `*` for all.
    """

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...] = ()
    exposed_headers: tuple[str, ...] = ()
    allows_credentials: bool = False
    max_age_seconds: int = 600


@dataclass(frozen=True, slots=True)
class Conditions:
    """Which requests of a route pass. The gateway decides alone, without asking anybody.

    Attributes:
        name: routes with the same name share their rates, which are then the same for all of them. `[a-z0-9-]`.
        keys: a request needs one of these; None asks for none.
        rate: of all requests together.
        key_rate: of the requests with one key.
        addresses: networks (CIDR) that clients must come from; none means anywhere. A client's address is the one that the connection
            comes from, or what so many trusted proxies in front of the gateway say of it.
        cors: None leaves CORS to the target.
    """

    name: str
    keys: tuple[ApiKey, ...] | None = None
    rate: Rate | None = None
    key_rate: Rate | None = None
    addresses: tuple[str, ...] = ()
    cors: Cors | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """Who may pass a route: signed-in members of a project, as the platform's guard says of every request and WebSocket.

    The guard is asked before anything reaches the target; when it can't be asked, nothing passes. Its answer sets the headers that tell the
    target who is there, and takes its own cookies out. What a client sends under the names of those headers never arrives.

    Attributes:
        project_id, kind, target_id: what the guard is told about the route, e.g. `notebook` and the notebook's id. No spaces or slashes.
        epoch: putting the route with another number ends all connections that were opened before, WebSockets too; new ones are not hindered.
    """

    project_id: str
    kind: str
    target_id: str
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """Something reachable through the gateway.

    Attributes:
        id: unique, `[a-z0-9-]`.
        prefix: the path that all rules live under, e.g. `/gateway/0192…/default`; empty for the root of a host.
        host: match requests for this host name alone; None matches the front door's own names.
        rules: tried in order; the first that matches answers. A request under the prefix that no rule matches gets a JSON 404.
        timeout_seconds: for a whole answer. 0 means none (streams, WebSockets).
        idle_seconds: a request or answer of which nothing arrives for so long is ended. None: the gateway's own limit.
        max_body_bytes: a larger request is answered 413.
        labels: what statistics and settings show, e.g. `{"endpoint": …, "stage": …}`; kept as pairs.
        access: who may pass; None leaves that to the target.
        conditions: which requests pass; None lets all.
    """

    id: str
    prefix: str
    rules: tuple[Rule, ...]
    upstreams: tuple[Upstream, ...]
    host: str | None = None
    timeout_seconds: float = 60.0
    max_body_bytes: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    access: Access | None = None
    idle_seconds: float | None = None
    conditions: Conditions | None = None


@dataclass(frozen=True, slots=True)
class ObservedRoute:
    """A route as the gateway has it. `digest` names the content it was put with (`route_digest`)."""

    id: str
    digest: str


@dataclass(frozen=True, slots=True)
class UpstreamStatistics:
    """What went to the targets of an upstream, counted since some moment: when the counts fall, counting has begun anew.

    Attributes:
        name: the upstream's. Upstreams of several routes that have the same name are counted together.
        calls_count: requests that were answered, by the target or, for want of an answer, by the gateway.
        success_count, redirect_count, client_error_count, server_error_count: of these, answers 2xx, 3xx, 4xx, 5xx.
        timeout_count: of these, answers that took too long.
        active_count: requests under way now.
        received_bytes, sent_bytes: to the targets, and from them.
        latencies: (upper bound in seconds, requests at or below it and above the bound before), rising; the last bound is infinite.
    """

    name: str
    calls_count: int = 0
    success_count: int = 0
    redirect_count: int = 0
    client_error_count: int = 0
    server_error_count: int = 0
    timeout_count: int = 0
    active_count: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    latencies: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the gateway decided about a route's requests by itself, counted since some moment: when the counts fall, it has begun anew.

    Attributes:
        size_count, key_count, address_count, rate_count: requests turned away for their size (413), key (401), client's address (403), rate (429).
        calls_by_key: id of a key → requests that came with it, whatever became of them.
    """

    route_id: str
    size_count: int = 0
    key_count: int = 0
    address_count: int = 0
    rate_count: int = 0
    calls_by_key: Mapping[str, int] = field(default_factory=dict[str, int])


class GatewayRefused(Exception):
    """The gateway does not take this configuration; the message is the gateway's own reason."""


class Gateway(Protocol):
    """A front door."""

    async def put_route(self, route: Route) -> None:
        """Create or replace. Returns when new requests take the new way. Raises `GatewayRefused` or `RetryLater`."""
        ...

    async def remove_route(self, route_id: str) -> None:
        """Take it away; removing what is not there is fine. Returns when new requests no longer take it."""
        ...

    async def list_routes(self) -> Sequence[ObservedRoute]:
        """What the gateway itself has deployed now, not what it was told."""
        ...

    async def read_statistics(self) -> Sequence[UpstreamStatistics]:
        """What was counted for each upstream that had requests. Raises `RetryLater` when the gateway can't be asked."""
        ...

    async def read_decisions(self) -> Sequence[Decisions]:
        """What was decided of the routes' requests, for routes of which some were turned away or came with a key. Raises `RetryLater`."""
        ...

    async def read_route(self, route_id: str) -> str | None:
        """The configuration of one route as the gateway has it now, in the gateway's own language (JSON); None when it has none.

        Raises `RetryLater` when it can't be asked.
        """
        ...


def route_digest(route: Route) -> str:
    """32 hex digits over the content of a route."""
    return hashlib.sha256(repr(route).encode()).hexdigest()[:32]
