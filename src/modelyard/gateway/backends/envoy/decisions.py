"""What Envoy decided of requests by itself, as it counts it.

Envoy's filters count for themselves and all routes together. So the end of each request that was turned away or came with an API key is counted
once more, by route, key and what was decided, through a log that counts instead of writing lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelyard.gateway.backends.envoy.conditions import KEY_ID_HEADER
from modelyard.gateway.port import Decisions

Json = dict[str, Any]

DECIDED = "modelyard_decided."
"""What the names of these counters begin with."""

_REFUSALS = {
    "413.request_payload_too_large": "size_count",
    "401": "key_count",
    "403.rbac_access_denied": "address_count",
    "429.local_rate_limited": "rate_count",
}
_MAX_COUNTERS = 200_000
_STATUSES = (401, 403, 413, 429)
_NAME = re.compile(
    r"modelyard_decided\.requests\.route\.(?P<route>[a-z0-9-]*)\.key\.(?P<key>[A-Za-z0-9-]*)\.is\.(?P<decision>.*)",
    re.DOTALL,
)


def decision_log() -> Json:
    """The log (envoy.config.accesslog.v3.AccessLog)."""
    statuses = [
        {
            "status_code_filter": {
                "comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": "modelyard.none"}}
            }
        }
        for status in _STATUSES
    ]
    has_key = {"header_filter": {"header": {"name": KEY_ID_HEADER, "present_match": True}}}
    tags = {
        "route": "%ROUTE_NAME%",
        "key": f"%REQ({KEY_ID_HEADER})%",
        "is": "%RESPONSE_CODE%.%RESPONSE_CODE_DETAILS%",
    }
    stat = {
        "name": "requests",
        "tags": [{"name": name, "value_format": value} for name, value in tags.items()],
    }
    return {
        "name": "decisions",
        "filter": {"or_filter": {"filters": [has_key, *statuses]}},
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config",
            "stats_scope": {"prefix": DECIDED.rstrip("."), "max_counters": _MAX_COUNTERS},
            "counters": [{"stat": stat, "value_fixed": 1}],
        },
    }


def decisions_in(counters: Mapping[str, int | str]) -> list[Decisions]:
    """What was decided, from Envoy's counters. An answer of a target's own, whatever its status, is no decision of the gateway's."""
    refused: dict[str, dict[str, int]] = {}
    keys: dict[str, dict[str, int]] = {}
    for name, value in counters.items():
        found = _NAME.fullmatch(name)
        if found is None:
            continue
        route, key, decision = found["route"], found["key"], found["decision"]
        field = None
        if not decision.endswith(".via_upstream"):
            field = next((field for begin, field in _REFUSALS.items() if decision.startswith(begin)), None)
        if field is not None:
            counts = refused.setdefault(route, {})
            counts[field] = counts.get(field, 0) + int(value)
        if key not in ("", "-"):
            calls = keys.setdefault(route, {})
            calls[key] = calls.get(key, 0) + int(value)
    return [
        Decisions(route, **refused.get(route, {}), calls_by_key=keys.get(route, {}))
        for route in sorted(refused.keys() | keys.keys())
    ]
