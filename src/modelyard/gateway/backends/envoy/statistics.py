"""What Envoy counted for each route, since Envoy's start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

PATTERN = r"^vhost\.[^.]*\.route\.[a-z0-9-]+\.upstream_rq_(total|[1-5]xx|timeout|retry|time)$"
_NAME = re.compile(PATTERN.replace("[a-z0-9-]+", "([a-z0-9-]+)"))


@dataclass(frozen=True, slots=True)
class RouteStatistics:
    """Calls of one route since Envoy's start.

    Attributes:
        calls_count: requests sent to targets, retries not counted.
        success_count, redirect_count, client_error_count, server_error_count: answers 2xx, 3xx, 4xx, 5xx. A target that gave no answer
            counts as 5xx; what the gateway turned away before (404, 413) is not counted.
        timeout_count: answers that took too long.
        retry_count: requests that were sent again.
        latency_seconds: percentile (50, 90, 99 …) → time until the whole answer was there.
    """

    route_id: str
    calls_count: int = 0
    success_count: int = 0
    redirect_count: int = 0
    client_error_count: int = 0
    server_error_count: int = 0
    timeout_count: int = 0
    retry_count: int = 0
    latency_seconds: tuple[tuple[float, float], ...] = ()


def route_statistics(content: bytes) -> dict[str, RouteStatistics]:
    """Statistics by route, from Envoy's JSON (`/stats?format=json`)."""
    counts: dict[str, dict[str, int]] = {}
    times: dict[str, tuple[tuple[float, float], ...]] = {}
    for entry in orjson.loads(content)["stats"]:
        if "histograms" in entry:
            times |= _latencies(entry["histograms"])
        elif found := _NAME.match(entry["name"]):
            route_id, counter = found.groups()
            counts.setdefault(route_id, {})[counter] = int(entry["value"])
    return {
        route_id: RouteStatistics(
            route_id,
            calls_count=counters.get("total", 0),
            success_count=counters.get("2xx", 0),
            redirect_count=counters.get("3xx", 0),
            client_error_count=counters.get("4xx", 0),
            server_error_count=counters.get("5xx", 0),
            timeout_count=counters.get("timeout", 0),
            retry_count=counters.get("retry", 0),
            latency_seconds=times.get(route_id, ()),
        )
        for route_id, counters in counts.items()
    }


def _latencies(histograms: dict[str, Any]) -> dict[str, tuple[tuple[float, float], ...]]:
    quantiles: list[float] = histograms.get("supported_quantiles", [])
    found: dict[str, tuple[tuple[float, float], ...]] = {}
    for entry in histograms.get("computed_quantiles", []):
        name = _NAME.match(entry["name"])
        if name is None:
            continue
        values = [value["cumulative"] for value in entry["values"]]
        pairs = zip(quantiles, values, strict=True)
        # Envoy counts in milliseconds.
        found[name.group(1)] = tuple((quantile, value / 1000) for quantile, value in pairs if value is not None)
    return found
