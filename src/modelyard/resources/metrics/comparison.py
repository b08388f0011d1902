"""Which runs of a comparison, and in which order. Pure.

A column is `name`, `state`, `created`, `started`, `finished`, `parameters.NAME` or `metrics.NAME`; a metric is meant by its last value, or with
`:min`, `:max` or `:steps` behind it by that. A name with other characters than letters, digits, `_`, `-`, `/` and `.` stands in double quotes.
A filter is a column, one of `=`, `!=`, `<`, `<=`, `>`, `>=`, `~` (contains), and a value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.kit.errors import Fault
from modelyard.resources.metrics.model import Run

AGGREGATES = ("last", "min", "max", "steps")
_COLUMN = re.compile(
    r"""(?P<word>name|state|created|started|finished)
    |(?P<kind>parameters|params|metrics)\.(?P<name>"(?:[^"\\]|\\.)*"|[\w\-/.\u0080-\U0010ffff]+)(?::(?P<aggregate>last|min|max|steps))?""",
    re.VERBOSE,
)
_OPERATORS = ("!=", ">=", "<=", "=", ">", "<", "~")
_EXAMPLES = "name, state, created, parameters.lr, metrics.loss, metrics.loss:min"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table. `name` and `aggregate` are of parameters and metrics."""

    kind: str
    name: str = ""
    aggregate: str = "last"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs: those whose `column` stands so to `value`."""

    column: Column
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class Order:
    """In which order; runs without the column's value come last in either direction."""

    column: Column
    is_descending: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a comparison."""

    filters: tuple[Filter, ...] = ()
    orders: tuple[Order, ...] = ()

    @property
    def metric_columns(self) -> set[Column]:
        """The metrics that must be known of every run."""
        columns = [*(each.column for each in self.filters), *(each.column for each in self.orders)]
        return {column for column in columns if column.kind == "metrics"}


@dataclass(frozen=True, slots=True)
class Figures:
    """What a metric of a run comes to."""

    last: float
    last_step: int
    point_count: int
    low: float | None = None
    low_step: int | None = None
    high: float | None = None
    high_step: int | None = None

    def aggregate(self, name: str) -> float | None:
        """One of `AGGREGATES`."""
        match name:
            case "min":
                return self.low
            case "max":
                return self.high
            case "steps":
                return float(self.last_step)
            case _:
                return self.last


RunFigures = Mapping[str, Mapping[str, Figures]]
"""By run and metric."""


def parse(filters: Sequence[str], sort: Sequence[str]) -> tuple[Wanted, list[Fault]]:
    """What the texts ask, and all that is wrong with them."""
    faults: list[Fault] = []
    parsed_filters: list[Filter] = []
    orders: list[Order] = []
    for text in filters:
        try:
            parsed_filters.append(_filter(text))
        except _BadText as bad:
            faults.append(Fault("filter", str(bad)))
    for text in sort:
        column_text = text.removeprefix("-")
        match = _COLUMN.fullmatch(column_text.strip())
        if match is None:
            faults.append(Fault("sort", f"'{text}' is no column; columns are e.g. {_EXAMPLES}"))
        else:
            orders.append(Order(_column(match), is_descending=text.startswith("-")))
    return Wanted(tuple(parsed_filters), tuple(orders)), faults


def choose(runs: Sequence[Run], figures: RunFigures, wanted: Wanted) -> list[Run]:
    """The runs that pass all filters, in the order wanted; where that is silent, in the order given."""
    chosen = [run for run in runs if all(_passes(run, figures, each) for each in wanted.filters)]
    for order in reversed(wanted.orders):
        present = [run for run in chosen if _cell(run, figures, order.column) is not None]
        absent = [run for run in chosen if _cell(run, figures, order.column) is None]
        key = _sort_key(figures, order.column, _is_numeric(present, figures, order.column))
        chosen = sorted(present, key=key, reverse=order.is_descending) + absent
    return chosen


class _BadText(Exception):
    """A filter that can't be read."""


def _filter(text: str) -> Filter:
    match = _COLUMN.match(text.strip())
    rest = text.strip()[match.end() :].strip() if match else ""
    operator = next((each for each in _OPERATORS if rest.startswith(each)), None)
    if match is None or operator is None:
        raise _BadText(
            f"'{text}' is no filter; write e.g. metrics.accuracy>0.9, parameters.lr=0.01, state=COMPLETE or name~base"
        )
    column, value = _column(match), rest[len(operator) :].strip()
    if column.kind == "metrics" and (operator == "~" or _number(value) is None):
        raise _BadText(f"'{text}': a metric is compared with a number")
    return Filter(column, operator, value)


def _column(match: re.Match[str]) -> Column:
    if match["word"]:
        return Column(match["word"])
    name = match["name"]
    kind = "metrics" if match["kind"] == "metrics" else "parameters"
    if name.startswith('"'):
        try:
            name = str(json.loads(name))
        except ValueError:
            raise _BadText(f"{name} is no quoted name") from None
    return Column(kind, name, match["aggregate"] or "last")


def _cell(run: Run, figures: RunFigures, column: Column) -> Any:
    match column.kind:
        case "name":
            return run.name
        case "state":
            return run.state
        case "created":
            return run.created_at
        case "started":
            return run.started_at
        case "finished":
            return run.ended_at
        case "parameters":
            return run.parameters.get(column.name)
        case _:
            known = figures.get(run.id, {}).get(column.name)
            value = None if known is None else known.aggregate(column.aggregate)
            return None if value is None or math.isnan(value) else value


def _passes(run: Run, figures: RunFigures, wanted: Filter) -> bool:
    cell = _cell(run, figures, wanted.column)
    if cell is None:
        return wanted.operator == "!="
    if wanted.operator == "~":
        return wanted.value.casefold() in _text(cell).casefold()
    number, other = _number(wanted.value), _number(_text(cell))
    if number is not None and other is not None:
        return _COMPARE[wanted.operator](other, number)
    return _COMPARE[wanted.operator](_text(cell), wanted.value)


def _is_numeric(runs: Sequence[Run], figures: RunFigures, column: Column) -> bool:
    return column.kind in ("parameters", "metrics") and all(
        _number(str(_cell(run, figures, column))) is not None for run in runs
    )


def _sort_key(figures: RunFigures, column: Column, is_numeric: bool) -> Callable[[Run], Any]:
    if is_numeric:
        return lambda run: _number(str(_cell(run, figures, column)))
    return lambda run: _text(_cell(run, figures, column)).casefold()


def _text(cell: Any) -> str:
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}
