"""What Envoy counts for each upstream, since Envoy's start.

Upstreams of the same name are one in Envoy's counters (`alt_stat_name`), so counts go on when replicas come and go.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from modelyard.gateway.port import UpstreamStatistics

_COUNTED = r"upstream_(rq_(completed|[2-5]xx|timeout|active|time)|cx_[rt]x_bytes_total)"
KEPT = rf"cluster\.[A-Za-z0-9_-]+\.{_COUNTED}"
"""The statistics that Envoy is to keep (RE2), and `PATTERN`, with which it is asked for them."""
PATTERN = f"^{KEPT}$"
_NAME = re.compile(rf"cluster\.([A-Za-z0-9_-]+)\.{_COUNTED}")
LATENCY_BOUNDS_MS = tuple(
    float(f"{step * 10.0**power:.3g}")
    for power in range(-1, 5)
    for step in (1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.3, 8.0)
)
"""Upper bounds of the buckets that latencies are counted in, 0.1 ms to 80 s: ten for each power of ten, so that a percentile is right
within an eighth, or within half a millisecond."""


_EACH_APART_MS = 6.3
"""Up to here no bucket holds more than one whole number."""


def upstream_statistics(content: bytes) -> list[UpstreamStatistics]:
    """Statistics by upstream, from Envoy's JSON (`/stats?format=json&histogram_buckets=disjoint`)."""
    counts: dict[str, dict[str, int]] = {}
    latencies: dict[str, tuple[tuple[float, int], ...]] = {}
    for entry in orjson.loads(content)["stats"]:
        if "histograms" in entry:
            latencies |= _latencies(entry["histograms"])
        elif found := _NAME.fullmatch(entry["name"]):
            counts.setdefault(found.group(1), {})[found.group(2)] = int(entry["value"])
    return [
        UpstreamStatistics(
            name,
            calls_count=counted.get("rq_completed", 0),
            success_count=counted.get("rq_2xx", 0),
            redirect_count=counted.get("rq_3xx", 0),
            client_error_count=counted.get("rq_4xx", 0),
            server_error_count=counted.get("rq_5xx", 0),
            timeout_count=counted.get("rq_timeout", 0),
            active_count=counted.get("rq_active", 0),
            received_bytes=counted.get("cx_tx_bytes_total", 0),
            sent_bytes=counted.get("cx_rx_bytes_total", 0),
            latencies=latencies.get(name, ()),
        )
        for name, counted in counts.items()
    ]


def _latencies(histograms: list[dict[str, Any]]) -> dict[str, tuple[tuple[float, int], ...]]:
    found: dict[str, tuple[tuple[float, int], ...]] = {}
    for histogram in histograms:
        name = _NAME.fullmatch(histogram["name"])
        if name is None:
            continue
        found[name.group(1)] = tuple(
            (_seconds(float(bucket["upper_bound"])), int(bucket["cumulative"])) for bucket in histogram["buckets"]
        )
    return found


def _seconds(bound_ms: float) -> float:
    """Envoy counts whole milliseconds and drops the rest: what it calls 2 took 2 to 3, and 0 is no time. The middle is off by half of one."""
    return (bound_ms if bound_ms > _EACH_APART_MS else int(bound_ms) + 0.5) / 1000
