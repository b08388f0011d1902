"""Numbers as people read them in a terminal: short, with sparklines."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """A curve in one line of text. Values that are infinite or no number are gaps."""
    if len(values) > width:
        values = [_middle(values[len(values) * at // width : len(values) * (at + 1) // width]) for at in range(width)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] if math.isfinite(value) else " " for value in values)


def number(value: float | None) -> str:
    """Six digits, and no more than are needed; `-` for none."""
    return "-" if value is None else f"{value:.6g}"


def at_step(value: float | None, step: int | None) -> str:
    """A value and the step where it stands."""
    return "-" if value is None else f"{number(value)} @ {step}"


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    power = min(int(math.log2(count) // 10), len(_UNITS) - 1) if count >= 1 else 0
    return f"{count / 1024**power:.4g} {_UNITS[power]}"


def _middle(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan
