"""Counts of what the server did, in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

_BOUNDS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_PREFIX = "modelyard_serving"


class Metrics:
    """Predictions by status, their latency, and how many are under way. Used from the event loop only."""

    def __init__(self, model_name: str) -> None:
        self._model = model_name.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        self._by_code: dict[int, int] = {}
        self._buckets = [0] * (len(_BOUNDS_SECONDS) + 1)
        self._seconds = 0.0

    def note(self, code: int, seconds: float) -> None:
        """Count one prediction request that was answered with `code` after `seconds`."""
        self._by_code[code] = self._by_code.get(code, 0) + 1
        self._buckets[bisect_left(_BOUNDS_SECONDS, seconds)] += 1
        self._seconds += seconds

    def render(self, counters: Mapping[str, int], *, in_flight: int, waiting: int, is_ready: bool) -> bytes:
        """All of it as text. `in_flight` counts requests that have a thread or wait for one, `waiting` the latter; `counters` are others' own."""
        model = f'model="{self._model}"'
        lines = [f"# TYPE {_PREFIX}_requests_total counter"]
        lines += [
            f'{_PREFIX}_requests_total{{{model},code="{code}"}} {count}'
            for code, count in sorted(self._by_code.items())
        ]
        lines.append(f"# TYPE {_PREFIX}_request_seconds histogram")
        total = 0
        for bound, count in zip([*map(str, _BOUNDS_SECONDS), "+Inf"], self._buckets, strict=True):
            total += count
            lines.append(f'{_PREFIX}_request_seconds_bucket{{{model},le="{bound}"}} {total}')
        lines.append(f"{_PREFIX}_request_seconds_sum{{{model}}} {self._seconds:.6f}")
        lines.append(f"{_PREFIX}_request_seconds_count{{{model}}} {total}")
        for name, value in counters.items():
            lines += [f"# TYPE {_PREFIX}_{name}_total counter", f"{_PREFIX}_{name}_total{{{model}}} {value}"]
        for name, value in (("in_flight", in_flight), ("waiting", waiting), ("ready", int(is_ready))):
            lines += [f"# TYPE {_PREFIX}_{name} gauge", f"{_PREFIX}_{name}{{{model}}} {value}"]
        return ("\n".join(lines) + "\n").encode()
