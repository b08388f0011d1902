"""HTTP door of metrics."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Depends, Query

from modelyard.kit.clock import utc_now
from modelyard.kit.paging import PageRequest
from modelyard.resources.metrics.comparison import Figures
from modelyard.resources.metrics.model import MAX_INSTANCE, Point, Run
from modelyard.resources.metrics.schemas import (
    ComparedRunOut,
    ComparisonOut,
    MetricList,
    MetricOut,
    MetricValueOut,
    MetricWrite,
    MetricWritten,
    PointsOut,
)
from modelyard.resources.metrics.service import ComparisonRequest, History, HistoryRequest, Metrics, Runs
from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.web import page_request, paging_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def create_router(metrics: Metrics, runs: Runs, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "metrics")

    @router.get("/trainings/{training_id}/metrics")
    async def read_training_metrics(
        training_id: str,
        name: list[str] = Query(default=[], description="Metrics whose history is wanted; may be repeated."),
        instance: int | None = Query(default=None, ge=0, le=MAX_INSTANCE),
        from_step: int | None = Query(default=None, ge=-(2**62), le=2**62, alias="fromStep"),
        to_step: int | None = Query(default=None, ge=-(2**62), le=2**62, alias="toStep"),
        max_points: int = Query(default=1000, ge=10, le=5000, alias="maxPoints", description="Of each metric."),
        caller: Caller = Depends(access),
        page: PageRequest = Depends(page_request),
    ) -> MetricList:
        """What the metrics of a training come to; of those that `name` asks for, their history too.

        A history with more than `maxPoints` points is sampled: the lowest and the highest of each stretch stay, so that no peak is lost.
        """
        wanted = HistoryRequest(tuple(name), instance, from_step, to_step, max_points)
        report = await metrics.report(runs, caller, training_id, wanted, page)
        return MetricList(
            metric_list=[_metric_out(each) for each in report.metrics.items],
            note_list=list(report.notes),
            paging=paging_of(report.metrics),
        )

    @router.post("/trainings/{training_id}/metrics")
    async def write_training_metrics(
        training_id: str, body: MetricWrite, caller: Caller = Depends(access)
    ) -> MetricWritten:
        """Write metrics without TensorBoard. Points that are there already (same metric, step and time) stay as they are."""
        now = utc_now()
        points = [Point(each.name, each.step, _microseconds(each.time or now), each.value) for each in body.metric_list]
        if all(each.time is not None for each in body.metric_list):
            caller = replace(caller, idempotency_key=None)  # times tell a point that is sent again
        await metrics.write(runs, caller, training_id, body.instance, points)
        return MetricWritten(point_count=len(points))

    @router.get("/experiments/{experiment_id}/comparison")
    async def compare_experiment(
        experiment_id: str,
        name: list[str] = Query(default=[], description="Metrics that are wanted; all when absent."),
        filter: list[str] = Query(default=[], max_length=20, description="e.g. `metrics.loss:min<0.1`; all must hold."),
        sort: list[str] = Query(default=[], max_length=5, description="e.g. `-metrics.accuracy`; the first decides."),
        caller: Caller = Depends(access),
        page: PageRequest = Depends(page_request),
    ) -> ComparisonOut:
        """The trainings of an experiment side by side: hyperparameters and metrics, newest first unless sorted.

        Columns are `name`, `state`, `created`, `started`, `finished`, `parameters.NAME` and `metrics.NAME`; a metric is meant by its last value,
        or with `:min`, `:max`, `:steps` behind the name by that. Names with unusual characters stand in double quotes.
        """
        request = ComparisonRequest(tuple(name), tuple(filter), tuple(sort))
        found = await metrics.compare(runs, caller, experiment_id, request, page)
        return ComparisonOut(
            parameter_name_list=list(found.parameter_names),
            metric_name_list=list(found.metric_names),
            has_more_metrics=found.has_more_metrics,
            run_list=[_run_out(run, found.figures.get(run.id, {})) for run in found.runs.items],
            paging=paging_of(found.runs),
        )

    return router


def _metric_out(history: History) -> MetricOut:
    series = history.series
    points = history.points
    return MetricOut(
        name=series.name,
        instance=series.instance,
        point_count=series.point_count,
        non_finite_count=series.odd_count,
        first_step=series.first_step,
        last_step=series.last[0],
        last_time=_moment(series.last[1]),
        last_value=series.last_value,
        min_value=None if series.low is None else series.low.value,
        min_step=None if series.low is None else series.low.step,
        max_value=None if series.high is None else series.high.value,
        max_step=None if series.high is None else series.high.step,
        points=None
        if points is None
        else PointsOut(steps=points.steps.tolist(), times=_moments(points.times), values=points.values.tolist()),
        is_sampled=None if points is None else history.is_sampled,
    )


def _run_out(run: Run, figures: Mapping[str, Figures]) -> ComparedRunOut:
    return ComparedRunOut(
        training_id=run.id,
        training_name=run.name,
        training_status_code=run.state,
        created_datetime=run.created_at,
        started_datetime=run.started_at,
        finished_datetime=run.ended_at,
        parameters=dict(run.parameters),
        metrics={name: _value_out(each) for name, each in sorted(figures.items())},
    )


def _value_out(figures: Figures) -> MetricValueOut:
    return MetricValueOut(
        last=figures.last,
        last_step=figures.last_step,
        min=figures.low,
        min_step=figures.low_step,
        max=figures.high,
        max_step=figures.high_step,
        point_count=figures.point_count,
    )


def _moments(times: array[int]) -> list[datetime]:
    return [_moment(time) for time in times]


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
