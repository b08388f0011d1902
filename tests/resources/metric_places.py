"""A metric store on a database of a test's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.columns import Table
from modelyard.db.engine import Database
from modelyard.kit.errors import NotFound
from modelyard.resources.metrics.model import Owner, Point, Run
from modelyard.resources.metrics.table import (
    MetricArrivalRow,
    MetricBlockRow,
    MetricFileRow,
    MetricRunRow,
    MetricSeriesRow,
)
from modelyard.resources.projects.model import Caller, Project, TokenKind

PROJECT = Project("project", "project", "app-key", "tenant", "api-user", "store-user")
CALLER = Caller(PROJECT, "user:tester", TokenKind.ACCESS)
EXPERIMENT = "experiment"


async def make_metric_tables(database: Database, *more: type[Table]) -> None:
    """The tables of the metric store, without the migrations."""
    from modelyard.control.tables import IdempotencyRow

    rows = (MetricRunRow, MetricFileRow, MetricSeriesRow, MetricArrivalRow, MetricBlockRow, IdempotencyRow, *more)
    async with database.engine.begin() as connection:
        await connection.run_sync(
            Table.metadata.create_all, tables=[Table.metadata.tables[row.__tablename__] for row in rows]
        )


class KnownRuns:
    """Runs that a test has made up."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self.runs = {run.id: run for run in runs}

    async def find_run(self, caller: Caller, run_id: str) -> Run:
        if run_id not in self.runs:
            raise NotFound("training", run_id)
        return self.runs[run_id]

    async def hold_run(self, session: AsyncSession, caller: Caller, run_id: str) -> Owner:
        await self.find_run(caller, run_id)
        return Owner("training", run_id, caller.project.id, EXPERIMENT)

    async def runs_of_experiment(self, caller: Caller, experiment_id: str) -> Sequence[Run]:
        return sorted(self.runs.values(), key=lambda run: run.created_at, reverse=True)


def run(id: str, state: str = "COMPLETE", minute: int = 0, **parameters: str) -> Run:
    return Run(
        id=id,
        name=f"name of {id}",
        state=state,
        created_at=datetime(2026, 1, 1, 0, minute, tzinfo=UTC),
        group_id=EXPERIMENT,
        parameters=parameters,
    )


def points(name: str, values: Iterable[float], first_step: int = 0, time: int = 1_700_000_000_000_000) -> list[Point]:
    """One point a step, a second apart."""
    return [Point(name, step, time + step * 1_000_000, value) for step, value in enumerate(values, start=first_step)]


def same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the numbers are the same, NaN too."""
    return len(one) == len(other) and all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(one, other, strict=True)
    )
