"""HTTP door of use."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Literal, Protocol

from fastapi import APIRouter, Depends, Query

from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.resources.usage.model import Stretch
from modelyard.resources.usage.schemas import UsageLimits, UsageList, UsageOut
from modelyard.resources.usage.service import Usage, UsageReport, UsageRequest


class Runs(Protocol):
    """Those whose use is asked for: the trainings."""

    async def find_run(self, caller: Caller, run_id: str) -> object:
        """A run of the caller's project. Raises `NotFound`."""
        ...


def create_router(usage: Usage, runs: Runs, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "usage")

    @router.get("/trainings/{training_id}/usage")
    async def read_training_usage(
        training_id: str,
        instance: int | None = Query(default=None, ge=0, le=99),
        begin_at: datetime | None = Query(default=None, alias="from"),
        end_at: datetime | None = Query(default=None, alias="to"),
        resolution_seconds: Literal["10", "60", "3600"] | None = Query(default=None, alias="resolutionSeconds"),
        max_points: int = Query(default=1000, ge=1, le=5000, alias="maxPoints", description="Of each instance."),
        caller: Caller = Depends(access),
    ) -> UsageList:
        """What the instances of a training use: cores, memory, disk and GPUs, a sample every ten seconds.

        Without `resolutionSeconds` the finest stretches that are kept of the whole time and are at most `maxPoints`.
        """
        await runs.find_run(caller, training_id)
        wanted = UsageRequest(
            begin=0 if begin_at is None else _seconds(begin_at),
            end=2**40 if end_at is None else _seconds(end_at),
            instance=instance,
            resolution=None if resolution_seconds is None else int(resolution_seconds),
            max_points=max_points,
        )
        return _usage_list(await usage.report(training_id, wanted))

    return router


def _usage_list(report: UsageReport) -> UsageList:
    limits = report.limits
    return UsageList(
        resolution_seconds=report.resolution,
        limits=UsageLimits()
        if limits is None
        else UsageLimits(cpu_cores=limits.cpus, memory_bytes=limits.memory_bytes, disk_bytes=limits.storage_bytes),
        usage_list=[
            _usage_out(instance, [*stretches])
            for instance, stretches in groupby(report.stretches, key=lambda stretch: stretch.instance)
        ],
    )


def _usage_out(instance: int, stretches: Sequence[Stretch]) -> UsageOut:
    has_gpu = any(stretch.gpu_percent is not None for stretch in stretches)
    return UsageOut(
        instance=instance,
        times=[datetime.fromtimestamp(stretch.at, UTC) for stretch in stretches],
        cpu_cores=[round(stretch.cpu_cores, 3) for stretch in stretches],
        cpu_cores_max=[round(stretch.cpu_cores_max, 3) for stretch in stretches],
        memory_bytes=[round(stretch.memory_bytes) for stretch in stretches],
        memory_bytes_max=[stretch.memory_bytes_max for stretch in stretches],
        disk_bytes=[stretch.disk_bytes for stretch in stretches],
        gpu_percent=[round(stretch.gpu_percent or 0.0, 1) for stretch in stretches] if has_gpu else None,
        gpu_memory_bytes=[stretch.gpu_memory_bytes or 0 for stretch in stretches] if has_gpu else None,
    )


def _seconds(moment: datetime) -> int:
    """Whole seconds since 1970; a moment without an offset is taken for UTC."""
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())
