"""One route of the port, turned into Envoy's words: checked, split into entries, its upstreams named by their content.

An upstream is named by a digest of its targets and is never changed: other targets make another upstream, so a change of replicas is
"add the new one, move the route, remove the old one later", and no request ever meets half a change.

Envoy matches the path as it came. A route with prefix P has two lists of entries: *bare* for the path P itself and *below* for what
begins with `P/`, which keeps matches on segment borders and makes every rewrite a plain replacement. How lists are found among thousands
is `routes.py`'s part.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from modelyard.gateway.backends.envoy.conditions import METADATA, apply_conditions, check_conditions
from modelyard.gateway.backends.envoy.guarded import (
    GUARD_CLUSTER,
    access_fault,
    entry_filters,
    guard_addresses,
    relay_address,
    relay_listener,
    relay_name,
)
from modelyard.gateway.port import GatewayRefused, Mirror, Route, Rule, Target, Upstream, route_digest

Json = dict[str, Any]

_COUNTABLE = re.compile(r"[A-Za-z0-9_-]+")
_CONNECT_SECONDS = 2.0  # targets are on this machine: what does not answer by then is overloaded or gone
_IDLE_CONNECTION = (
    "3s"  # shorter than the keep-alive of the usual servers (5 s), so that the gateway is the one to hang up
)
_HIGH = 1_000_000  # Envoy's defaults for concurrent requests (1024) and retries (3) are for other scales
# All targets are compared, not two picked by chance: one that hangs holds as many requests as each of the others then, not in the end all of them.
_LEAST_REQUEST = {
    "name": "envoy.load_balancing_policies.least_request",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
        "selection_method": "FULL_SCAN",
    },
}
_IDLE_STREAM_SECONDS = 300

_ID = re.compile(r"[a-z0-9-]{1,200}")
_HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9_.-]*[a-z0-9])?")
_PATH = re.compile(r"/[!-~]*")
_METHOD = re.compile(r"[A-Z]{1,20}")


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A route as Envoy gets it.

    Attributes:
        route: what was put.
        host: the host name it answers to, empty for the front door's own.
        prefix: without a slash at its end; empty for the root.
        bare, below: JSON of the action for the path `prefix` itself, and for what lies below it. None where nothing does.
        clusters: JSON of each upstream, by its name.
        listeners: JSON of each listener inside Envoy that a guarded route leads through, by its name.
        saved: the route itself as JSON, to be read again by `saved.py`.
    """

    route: Route
    host: str
    prefix: str
    bare: bytes | None
    below: bytes
    clusters: Mapping[str, bytes]
    listeners: Mapping[str, bytes]
    saved: bytes


def compile_route(route: Route) -> CompiledRoute:
    """The route in Envoy's words. Raises `GatewayRefused` with a sentence when it makes no sense."""
    _check(route)
    try:
        saved = orjson.dumps(route)
    except (TypeError, ValueError) as cause:  # half a surrogate pair, a number beyond 64 bits
        raise GatewayRefused(f"route '{route.id}': {cause}") from cause
    prefix = route.prefix.rstrip("/")
    ways = {upstream.name: _way(route, upstream) for upstream in route.upstreams}
    bare = [entry for rule in route.rules for entry in _bare_entries(route, prefix, rule, ways)] if prefix else []
    below = [entry for rule in route.rules for entry in _below_entries(route, prefix, rule, ways)]
    # The bare list stands in the configuration twice (`routes.py`), so its entries count twice.
    _label(route, bare, below, entry_count=2 * len(bare) + len(below))
    return CompiledRoute(
        route=route,
        host=(route.host or "").lower(),
        prefix=prefix,
        bare=_action(bare) if prefix else None,
        below=_action(below),
        clusters={name: content for way in ways.values() for name, content in way.clusters.items()},
        listeners={name: content for way in ways.values() for name, content in way.listeners.items()},
        saved=saved,
    )


def _check(route: Route) -> None:
    def refuse(sentence: str) -> GatewayRefused:
        return GatewayRefused(f"route '{route.id}': {sentence}")

    if not _ID.fullmatch(route.id):
        raise refuse("an id has 1 to 200 lower-case letters, digits and dashes")
    if route.host is not None and not _HOST.fullmatch(route.host.lower()):
        raise refuse(f"'{route.host}' is not a host name")
    if route.prefix and (fault := _path_fault(route.prefix)):
        raise refuse(f"the prefix '{route.prefix}' {fault}")
    if route.conditions is not None:
        try:
            check_conditions(route.conditions)
        except GatewayRefused as refusal:
            raise refuse(str(refusal)) from refusal
    if route.idle_seconds is not None and route.idle_seconds <= 0:
        raise refuse("the limit without a byte must be above 0")
    if route.timeout_seconds < 0:
        raise refuse("the time limit must not be negative")
    if route.max_body_bytes is not None and route.max_body_bytes < 0:
        raise refuse("the body limit must not be negative")
    upstreams = {upstream.name: upstream for upstream in route.upstreams}
    if len(upstreams) != len(route.upstreams):
        raise refuse("two upstreams have the same name")
    for upstream in route.upstreams:
        if upstream.weight < 0:
            raise refuse(f"the weight of upstream '{upstream.name}' must not be negative")
    if route.access is not None and (fault := access_fault(route.access)):
        raise refuse(f"it {fault}")
    if not route.rules:
        raise refuse("a route needs a rule")
    for rule in route.rules:
        for path in (rule.path, *([] if rule.rewrite is None else [rule.rewrite])):
            if fault := _path_fault(path):
                raise refuse(f"the path '{path}' {fault}")
        if unknown := [name for name in rule.upstreams if name not in upstreams]:
            raise refuse(f"rule '{rule.path}' names the upstream '{unknown[0]}', which the route does not have")
        for mirror in rule.mirrors:
            if mirror.upstream not in upstreams:
                raise refuse(f"rule '{rule.path}' mirrors to '{mirror.upstream}', which is no upstream of the route")
            if not 0 < mirror.percent <= 100:
                raise refuse(
                    f"rule '{rule.path}' mirrors {mirror.percent:g} percent, which is not above 0 and at most 100"
                )
        if rule.answer is not None and (rule.upstreams or rule.mirrors or rule.rewrite is not None):
            raise refuse(f"rule '{rule.path}' has an answer of the gateway's own, so nothing is asked for it")
        if rule.answer is None and not sum(upstreams[name].weight for name in rule.upstreams):
            raise refuse(f"rule '{rule.path}' has no upstream with a weight above 0")
        if wrong := [method for method in rule.methods if not _METHOD.fullmatch(method)]:
            raise refuse(f"rule '{rule.path}' has '{wrong[0]}', which is not an HTTP method")


def _path_fault(path: str) -> str | None:
    if not _PATH.fullmatch(path):
        return "must begin with '/' and have only printable ASCII characters (others percent-encoded)"
    if any(character in path for character in "?#\\"):
        return "must not have '?', '#' or a backslash"
    if "//" in path:
        return "must not have an empty segment"
    if any(segment.lower().replace("%2e", ".") in {".", ".."} for segment in path.split("/")):
        return "must not have a '.' or '..' segment"
    return None


def _bare_entries(route: Route, prefix: str, rule: Rule, ways: _Ways) -> Iterator[Json]:
    """Entries for the path `prefix` itself: only a rule for `/` speaks of it."""
    if rule.path == "/":
        yield _entry(route, rule, {"path": prefix}, ways, rewrite=rule.rewrite)


def _below_entries(route: Route, prefix: str, rule: Rule, ways: _Ways) -> Iterator[Json]:
    path = prefix + rule.path
    if not rule.is_prefix:
        yield _entry(route, rule, {"path": path}, ways, rewrite=rule.rewrite)
        return
    if not rule.path.endswith("/"):
        yield _entry(route, rule, {"path": path}, ways, rewrite=rule.rewrite)
    deeper = None if rule.rewrite is None else rule.rewrite.rstrip("/") + "/"
    yield _entry(route, rule, {"prefix": path.rstrip("/") + "/"}, ways, rewrite=deeper)


def _entry(route: Route, rule: Rule, match: Json, ways: _Ways, *, rewrite: str | None) -> Json:
    if rule.methods:
        methods: Json = {"safe_regex": {"google_re2": {}, "regex": "|".join(rule.methods)}}
        match = {**match, "headers": [{"name": ":method", "string_match": methods}]}
    entry: Json = {"match": match}
    if rule.answer is None:
        entry["route"] = _asking(route, rule, ways, rewrite)
    else:
        entry["direct_response"] = {"status": 200, "body": {"inline_string": rule.answer}}
    if route.access is not None:
        entry["typed_per_filter_config"] = entry_filters(route.access)
    return apply_conditions(route, entry)


def _asking(route: Route, rule: Rule, ways: _Ways, rewrite: str | None) -> Json:
    action: Json = {**_destination(route, rule, ways), **_time_limits(route)}
    if rewrite is not None:
        action["prefix_rewrite"] = rewrite
    if rule.mirrors:
        action["request_mirror_policies"] = [_mirror(mirror, ways) for mirror in rule.mirrors]
    return action


def _mirror(mirror: Mirror, ways: _Ways) -> Json:
    share = {"numerator": round(mirror.percent * 10_000), "denominator": "MILLION"}
    return {
        "cluster": ways[mirror.upstream].cluster,
        "runtime_fraction": {"default_value": share},
        "disable_shadow_host_suffix_append": True,
    }


def _destination(route: Route, rule: Rule, ways: _Ways) -> Json:
    weights = {upstream.name: upstream.weight for upstream in route.upstreams}
    chosen = [(ways[name].cluster, weights[name]) for name in rule.upstreams if weights[name]]
    if len(chosen) == 1:
        return {"cluster": chosen[0][0]}
    return {"weighted_clusters": {"clusters": [{"name": name, "weight": weight} for name, weight in chosen]}}


def _time_limits(route: Route) -> Json:
    idle = None if route.idle_seconds is None else f"{max(route.idle_seconds, 0.001):.3f}s"
    if route.timeout_seconds == 0:
        return {"timeout": "0s", "idle_timeout": idle or "0s"}
    limits: Json = {"timeout": f"{max(route.timeout_seconds, 0.001):.3f}s"}
    if idle is not None:
        limits["idle_timeout"] = idle
    elif route.timeout_seconds > _IDLE_STREAM_SECONDS:
        limits["idle_timeout"] = limits["timeout"]
    return limits


def _label(route: Route, bare: list[Json], below: list[Json], *, entry_count: int) -> None:
    """Write into the entries whose they are. By this `list_routes` sees what Envoy really has, all of it or a part.

    The first entry carries the digest and how many entries there should be, the others the id alone: Envoy is slow to load metadata.
    """
    for entry in (*bare, *below):
        entry |= {"name": route.id, "stat_prefix": route.id}
    if below:
        labels = {"id": route.id, "digest": route_digest(route), "entry_count": entry_count}
        known: Json = below[0].get("metadata", {}).get("filter_metadata", {}).get(METADATA, {})
        below[0]["metadata"] = {"filter_metadata": {METADATA: {**known, **labels}}}


def _action(entries: Sequence[Json]) -> bytes:
    routes = {"@type": "type.googleapis.com/envoy.config.route.v3.RouteList", "routes": list(entries)}
    return orjson.dumps({"action": {"name": "routes", "typed_config": routes}})


@dataclass(frozen=True, slots=True)
class _Way:
    """How requests get to an upstream: the cluster that an entry names, and all that this takes."""

    cluster: str
    clusters: Mapping[str, bytes]
    listeners: Mapping[str, bytes]


_Ways = Mapping[str, _Way]


def _way(route: Route, upstream: Upstream) -> _Way:
    addresses = sorted({target.address for target in upstream.targets})
    limit = [] if upstream.max_requests is None else [str(upstream.max_requests)]
    name = "u-" + hashlib.sha256("\n".join([upstream.name, *addresses, *limit]).encode()).hexdigest()[:24]
    targets = [_address(Target(address)) for address in addresses]
    direct = {name: _cluster_named(name, targets, upstream.name, upstream.max_requests)}
    if route.access is None:
        return _Way(name, direct, {})
    relay = relay_name(route, route.access, name)
    through = {**direct, relay: _cluster_named(relay, [relay_address(relay)])}
    return _Way(relay, through, {relay: relay_listener(relay, name)})


def guard_cluster(sockets: Sequence[Path]) -> Mapping[str, bytes]:
    """The upstream of the platform's guards, which every guarded route needs."""
    return {GUARD_CLUSTER: _cluster_named(GUARD_CLUSTER, guard_addresses(sockets))} if sockets else {}


def _cluster_named(
    name: str, addresses: Sequence[Json], counted_as: str | None = None, max_requests: int | None = None
) -> bytes:
    thresholds = {
        "max_connections": _HIGH,
        "max_pending_requests": max_requests or _HIGH,
        "max_requests": max_requests or _HIGH,
        "max_retries": _HIGH,
    }
    endpoints = [{"endpoint": {"address": address}} for address in addresses]
    cluster: Json = {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": f"{_CONNECT_SECONDS}s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "circuit_breakers": {"thresholds": [thresholds]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": _IDLE_CONNECTION},
            }
        },
    }
    if counted_as is not None and _COUNTABLE.fullmatch(counted_as):
        cluster["alt_stat_name"] = counted_as
    if len(addresses) > 1:
        cluster["outlier_detection"] = _outliers()
        cluster["load_balancing_policy"] = {"policies": [{"typed_extension_config": _LEAST_REQUEST}]}
    return orjson.dumps(cluster)


def _outliers() -> Json:
    # Only failures of the connection put a target aside: an answer of 500 is the model's word about one request, not the replica's health.
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_time": "30s",
        "max_ejection_percent": 50,
    }


def _address(target: Target) -> Json:
    if target.is_socket:
        return {"pipe": {"path": target.address}}
    host, separator, port = target.address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        separator = ""
    if not separator or not port.isdecimal() or not 0 < int(port) < 65536:
        raise GatewayRefused(f"'{target.address}' is neither the path of a Unix socket nor an IP address with a port")
    return {"socket_address": {"address": host, "port_value": int(port)}}
