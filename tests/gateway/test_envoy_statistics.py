"""What Envoy's counters say, in seconds and calls."""

from __future__ import annotations

import json

from modelyard.gateway.backends.envoy.statistics import LATENCY_BOUNDS_MS, upstream_statistics


def test_whole_milliseconds_are_told_by_their_middle() -> None:
    """Envoy drops the fraction: calls of 0.7 ms are calls of 0 to it, and would look as if they took no time."""
    counts = {0.1: 5, 1.0: 4, 3.2: 3, 6.3: 2, 8.0: 1, 12.5: 6}
    buckets = [{"upper_bound": bound, "cumulative": counts.get(bound, 0)} for bound in (*LATENCY_BOUNDS_MS, 1e300)]
    content = {
        "stats": [
            {"name": "cluster.m.upstream_rq_completed", "value": 21},
            {"histograms": [{"name": "cluster.m.upstream_rq_time", "buckets": buckets}]},
        ]
    }
    [found] = upstream_statistics(json.dumps(content).encode())
    assert {bound: count for bound, count in found.latencies if count} == {
        0.0005: 5,
        0.0015: 4,
        0.0035: 3,
        0.0065: 2,
        0.008: 1,
        0.0125: 6,
    }
    assert found.calls_count == 21
