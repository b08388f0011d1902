"""All routes together, as the one route configuration that Envoy watches, and the upstreams that it needs.

Envoy tries the routes of a virtual host one after the other, which is slow with thousands. Here a host's routes are found through two maps
instead: one by the exact path, one by the longest prefix that ends in `/`. The cost of a request does not grow with the number of routes.

A path with a `.` or `..` segment (plain or percent-encoded) or a backslash is answered 400. Clients resolve such segments before they send;
what arrives with one is a mistake or a trick, and to resolve it here would quietly name another object than the client did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from modelyard.gateway.backends.envoy.bootstrap import ROUTES
from modelyard.gateway.backends.envoy.compiled import CompiledRoute
from modelyard.gateway.backends.envoy.conditions import METADATA, host_filters
from modelyard.gateway.port import GatewayRefused, ObservedRoute

Json = dict[str, Any]

PROBE_HOST = "version.modelyard.internal"
"""The host name under which a worker tells the version of the routes that it serves."""

_REFUSED_PATHS = r"[^?]*(?:\\.*|/(?:\.|%2[eE]){1,2}(?:[/?].*)?)"
_ANSWER_BYTES = 65_536  # of an answer of the gateway's own; Envoy's default is 4,096
# A Unix socket refuses at once when its backlog is full, where a port would let the client wait: some patience makes up for that.
_RETRIES = 4


def check_places(routes: Iterable[CompiledRoute]) -> None:
    """Raise `GatewayRefused` when two routes claim the same prefix of the same host: which of them answers must not be chance."""
    owners: dict[tuple[str, str], str] = {}
    for compiled in routes:
        place = (compiled.host, compiled.prefix)
        owner = owners.setdefault(place, compiled.route.id)
        if owner != compiled.route.id:
            where = f"{compiled.host or 'the front door'}{compiled.prefix or '/'}"
            raise GatewayRefused(f"route '{compiled.route.id}': {where} belongs to route '{owner}' already")


def route_resource(routes: Iterable[CompiledRoute], version: str, first: Sequence[Json] = ()) -> bytes:
    """The discovery response (JSON) with the route configuration of all routes; `first` are the front door's matchers before them."""
    hosts: dict[str, list[CompiledRoute]] = {"": []}
    for compiled in routes:
        hosts.setdefault(compiled.host, []).append(compiled)
    configuration = {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": _ANSWER_BYTES,
        "response_headers_to_remove": ["x-envoy-upstream-service-time"],
        "virtual_hosts": [
            *(_virtual_host(host, members, () if host else first) for host, members in sorted(hosts.items())),
            _probe_host(version),
        ],
    }
    return orjson.dumps({"version_info": version, "resources": [configuration]})


def discovery_resource(named: Mapping[str, bytes], version: str) -> bytes:
    """The discovery response (JSON) with the given upstreams or listeners."""
    resources = [orjson.Fragment(content) for _, content in sorted(named.items())]
    return orjson.dumps({"version_info": version, "resources": resources})


def observed_routes(config_dump: bytes) -> list[ObservedRoute]:
    """The routes in an answer of Envoy's `/config_dump`.

    A route that Envoy has only a part of (somebody took entries out) is listed with a digest that fits no content, so that it is put again.
    """
    counts: Counter[str] = Counter()
    labels: dict[str, Json] = {}
    for entry in _entries(orjson.loads(config_dump)):
        counts[entry["name"]] += 1
        label = entry.get("metadata", {}).get("filter_metadata", {}).get(METADATA)
        if label is not None and "id" in label:
            labels[label["id"]] = label
    return [
        ObservedRoute(id, label["digest"] if counts[id] == int(label["entry_count"]) else "incomplete")
        for id, label in sorted(labels.items())
    ]


def configuration_of(route_id: str, config_dump: bytes) -> list[Json]:
    """The entries of one route in an answer of Envoy's `/config_dump`, as Envoy has them."""
    return [entry for entry in _entries(orjson.loads(config_dump)) if entry["name"] == route_id]


def clusters_named(entries: list[Json]) -> set[str]:
    """The upstreams that entries lead to."""
    names: set[str] = set()
    for entry in entries:
        action: Json = entry.get("route", {})
        names |= {cluster["name"] for cluster in action.get("weighted_clusters", {}).get("clusters", [])}
        names |= {action["cluster"]} if "cluster" in action else set()
    return names


def _virtual_host(host: str, routes: list[CompiledRoute], first: Sequence[Json]) -> Json:
    virtual: Json = {
        # A dot would split the name in the names of counters, and no host name has a colon.
        "name": host.replace(".", ":") or ":front-door",
        "domains": [host or "*"],
        "retry_policy": _retry_policy(),
    }
    if routes:
        virtual["matcher"] = _matcher(routes, first)
    if filters := host_filters([compiled.route for compiled in routes]):
        virtual["typed_per_filter_config"] = filters
    return virtual


def _matcher(routes: list[CompiledRoute], first: Sequence[Json]) -> Json:
    below: dict[str, orjson.Fragment] = {}
    exact: dict[str, orjson.Fragment] = {}
    for compiled in routes:
        below[compiled.prefix + "/"] = orjson.Fragment(compiled.below)
        if compiled.bare is not None:
            exact[compiled.prefix] = orjson.Fragment(compiled.bare)
            # The input is the path with its query, so `P?…` is a prefix of its own.
            below[compiled.prefix + "?"] = orjson.Fragment(compiled.bare)
    found: Json = {"matcher_tree": {"input": _path(), "prefix_match_map": {"map": below}}}
    if exact:
        found = {
            "matcher_tree": {"input": _path(), "exact_match_map": {"map": exact}},
            "on_no_match": {"matcher": found},
        }
    tricky: Json = {"input": _path(), "value_match": {"safe_regex": {"google_re2": {}, "regex": _REFUSED_PATHS}}}
    refusal = {
        "@type": "type.googleapis.com/envoy.config.route.v3.Route",
        "name": "refused-path",
        "match": {"prefix": "/"},
        "direct_response": {"status": 400},
    }
    return {
        "matcher_list": {
            "matchers": [
                *first,
                {
                    "predicate": {"single_predicate": tricky},
                    "on_match": {"action": {"name": "refusal", "typed_config": refusal}},
                },
            ]
        },
        "on_no_match": {"matcher": found},
    }


def _path() -> Json:
    return {
        "name": "path",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": ":path",
        },
    }


def _retry_policy() -> Json:
    # Each of these says that the target never saw the request, so it may be sent again whatever its method.
    return {
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": _RETRIES,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.250s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 3,
    }


def _probe_host(version: str) -> Json:
    answer = {"status": 200, "body": {"inline_string": version}}
    route = {"match": {"path": "/"}, "direct_response": answer}
    return {"name": ":probe", "domains": [PROBE_HOST], "routes": [route]}


def _entries(node: object) -> Iterator[Json]:
    """Every entry with a name in a dump, wherever it stands: matchers nest."""
    stack: list[Any] = [node]
    while stack:
        current: Any = stack.pop()
        if isinstance(current, list):
            stack.extend(current)  # pyright: ignore[reportUnknownArgumentType]  # JSON
        elif isinstance(current, dict):
            if "match" in current and "name" in current:
                yield current
            else:
                stack.extend(current.values())  # pyright: ignore[reportUnknownArgumentType,reportUnknownMemberType]  # JSON
