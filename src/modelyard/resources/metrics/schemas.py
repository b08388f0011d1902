"""Wire shapes of metrics. Values that are infinite or no number travel as the strings `Infinity`, `-Infinity` and `NaN`."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator

from modelyard.resources.metrics.model import MAX_INSTANCE, MAX_POINTS_A_WRITE, name_fault
from modelyard.wire import Header, Moment, Paging, Wire

_ODD = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MAX_STEP = 2**62


def _read_number(value: Any) -> Any:
    return _ODD.get(value, value) if isinstance(value, str) else value


def _write_number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


Number = Annotated[
    float,
    BeforeValidator(_read_number),
    PlainSerializer(_write_number, return_type=float | str, when_used="json"),
    Field(json_schema_extra={"description": "A number, or `NaN`, `Infinity` or `-Infinity` as a string."}),
]


class MetricPoint(Wire):
    """One value of a metric. A point is known by its metric, step and time: sent again it changes nothing."""

    name: str
    value: Number
    step: int = Field(default=0, gt=-_MAX_STEP, lt=_MAX_STEP)
    time: datetime | None = Field(default=None, description="The moment of arrival when absent.")

    @field_validator("time")
    @classmethod
    def _check_time(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("must say its offset from UTC, e.g. 2026-01-31T12:00:00Z")
        return value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        fault = name_fault(value)
        if fault is not None:
            raise ValueError(fault)
        return value


class MetricWrite(Wire):
    """`POST /trainings/{id}/metrics`: all points are kept, or none is."""

    metric_list: list[MetricPoint] = Field(min_length=1, max_length=MAX_POINTS_A_WRITE)
    instance: int = Field(default=0, ge=0, le=MAX_INSTANCE)


class MetricWritten(Wire):
    """How many points were sent."""

    header: Header = Header()
    point_count: int


class PointsOut(Wire):
    """A history in columns of the same length, by step and time."""

    steps: list[int]
    times: list[Moment]
    values: list[Number]


class MetricOut(Wire):
    """What a metric of one instance comes to.

    Attributes:
        last_value: at the last step. `min_value`, `max_value`: of the finite values, with the steps where they stand.
        non_finite_count: how many values are infinite or no number.
        points: its history, where it was asked for; `is_sampled` when it has more points than these.
    """

    name: str
    instance: int
    point_count: int
    non_finite_count: int
    first_step: int
    last_step: int
    last_time: Moment
    last_value: Number
    min_value: float | None = None
    min_step: int | None = None
    max_value: float | None = None
    max_step: int | None = None
    points: PointsOut | None = None
    is_sampled: bool | None = None


class MetricList(Wire):
    """`GET /trainings/{id}/metrics`. `noteList` says what was left out of the event files, and why."""

    header: Header = Header()
    metric_list: list[MetricOut]
    note_list: list[str] = []
    paging: Paging


class MetricValueOut(Wire):
    """What a metric comes to in a comparison."""

    last: Number
    last_step: int
    min: float | None = None
    min_step: int | None = None
    max: float | None = None
    max_step: int | None = None
    point_count: int


class ComparedRunOut(Wire):
    """A run in a comparison, with its hyperparameters and metrics by name."""

    training_id: str
    training_name: str
    training_status_code: str
    created_datetime: Moment
    started_datetime: Moment | None = None
    finished_datetime: Moment | None = None
    parameters: dict[str, str]
    metrics: dict[str, MetricValueOut]


class ComparisonOut(Wire):
    """`GET /experiments/{id}/comparison`: a table of runs.

    Attributes:
        parameter_name_list, metric_name_list: the names that any of the experiment's runs has, in order: the table's columns.
        has_more_metrics: there are more metrics than a table takes; name those that you want.
    """

    header: Header = Header()
    parameter_name_list: list[str]
    metric_name_list: list[str]
    has_more_metrics: bool = False
    run_list: list[ComparedRunOut]
    paging: Paging
