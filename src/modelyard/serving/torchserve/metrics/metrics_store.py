"""Where handlers put their own measurements; they are written to the log, one line each."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger("ts.metrics")


class MetricsStore:
    """Takes measurements under the names of TorchServe's methods."""

    def __init__(self, model_name: str = "") -> None:
        self.model_name = model_name

    def add_metric(self, name: str, value: Any, unit: str = "", **dimensions: Any) -> None:
        """Note a value."""
        logger.info("%s %s=%s %s %s", self.model_name, name, value, unit, dimensions or "")

    def add_counter(self, name: str, value: Any, **dimensions: Any) -> None:
        """Note an increment."""
        self.add_metric(name, value, "count", **dimensions)

    def add_time(self, name: str, value: Any, idx: int | None = None, unit: str = "ms", **dimensions: Any) -> None:
        """Note a duration."""
        self.add_metric(name, value, unit, **dimensions)

    def add_size(self, name: str, value: Any, idx: int | None = None, unit: str = "MB", **dimensions: Any) -> None:
        """Note a size."""
        self.add_metric(name, value, unit, **dimensions)

    def add_percent(self, name: str, value: Any, idx: int | None = None, **dimensions: Any) -> None:
        """Note a share of a hundred."""
        self.add_metric(name, value, "percent", **dimensions)

    def add_error(self, name: str, value: Any, **dimensions: Any) -> None:
        """Note an error."""
        self.add_metric(name, value, "error", **dimensions)
