"""`CONNECT` at the front door: programs that insist on a vendor's host names reach this platform without a change.

Such a program is given the front door as its HTTPS proxy. A tunnel to one of the names that the platform answers for ends at this gateway's
own TLS door; every other one is refused, so the gateway is never a way to elsewhere (RFC 9110, section 9.3.6).
"""

from __future__ import annotations

import re
from typing import Any

from modelyard.gateway.backends.envoy.conditions import without_size_limit
from modelyard.gateway.backends.envoy.settings import EnvoySettings

Json = dict[str, Any]

_OWN_TLS = "own-tls"
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound


def tunnel_clusters(settings: EnvoySettings) -> list[Json]:
    """The upstream at which tunnels end: this gateway's own TLS door. None without one, or without names."""
    if not settings.https or not settings.tunnel_names:
        return []
    own = settings.https[0]
    address = {"address": _LOOPBACK.get(own.host, own.host), "port_value": own.port}
    endpoint = {"endpoint": {"address": {"socket_address": address}}}
    return [
        {
            "name": _OWN_TLS,
            "type": "STATIC",
            "connect_timeout": "5s",
            "load_assignment": {"cluster_name": _OWN_TLS, "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
    ]


def tunnel_matchers(settings: EnvoySettings) -> list[Json]:
    """What stands before all other matches of the front door: `CONNECT` to a known name. What no route lets through is refused (`replies.py`)."""
    if not settings.https or not settings.tunnel_names:
        return []
    is_connect = _single(":method", {"exact": "CONNECT"})
    names = "|".join(re.escape(name) for name in settings.tunnel_names)
    is_known = _single(":authority", {"safe_regex": {"google_re2": {}, "regex": f"(?i:{names}):443"}})
    route: Json = {
        "@type": "type.googleapis.com/envoy.config.route.v3.Route",
        "name": "tunnel",
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": _OWN_TLS,
            "timeout": "0s",
            "idle_timeout": "600s",
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
        "typed_per_filter_config": without_size_limit(),
    }
    return [
        {
            "predicate": {"and_matcher": {"predicate": [is_connect, is_known]}},
            "on_match": {"action": {"name": "tunnel", "typed_config": route}},
        }
    ]


def _single(header: str, value_match: Json) -> Json:
    header_input = {
        "name": header.removeprefix(":"),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": header,
        },
    }
    return {"single_predicate": {"input": header_input, "value_match": value_match}}
