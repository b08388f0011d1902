"""What a training's state should be, given what is seen of its workload. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from modelyard.resources.trainings.lifecycle import TrainingState
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Desired, Workload

_STEPS = {"fetching": 1, "installing": 1, "preparing": 1, "waiting": 2, "running": 3, "uploading": 4, "done": 4}
"""How far a step is: made ready, waiting for others, running, being kept. A run is as far as the last of its instances."""
_WORKLOAD_REASONS = frozenset({"RESTART", "LAUNCHING", "LAUNCH_UNDONE"})
"""What the workload itself waits for; its instances have nothing to say then."""
_ORDER = ("fetching", "installing", "preparing", "waiting", "running", "uploading")
_NOT_RETOLD_TO = frozenset({TrainingState.STOP_IN_PROGRESS, TrainingState.STOPPED, TrainingState.CREATE_FAILED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state, and why, for a person."""

    state: TrainingState
    reason: str | None = None
    message: str | None = None
    at: datetime | None = None
    """When that began, where it is over by now; by the word of the run, so it is to be put between what is known."""


def judge(workload: Workload) -> Verdict:
    """The state of a training whose workload is seen like this."""
    match workload.state:
        case WorkloadState.SUCCEEDED:
            return Verdict(TrainingState.COMPLETE)
        case WorkloadState.STOPPED:
            return Verdict(TrainingState.STOPPED, "STOPPED", "Stopped as requested.")
        case WorkloadState.FAILED if workload.reason == "LAUNCH_FAILED":
            return Verdict(TrainingState.CREATE_FAILED, workload.reason, workload.message)
        case WorkloadState.FAILED:
            return Verdict(TrainingState.FAIL_TRAIN, workload.reason, workload.message)
        case WorkloadState.PENDING:
            return Verdict(TrainingState.CREATE_IN_PROGRESS, workload.reason or "WAITING", workload.message)
        case WorkloadState.STOPPING:
            return Verdict(TrainingState.STOP_IN_PROGRESS, workload.reason, workload.message)
        case WorkloadState.STARTING | WorkloadState.RUNNING:
            return _judge_by_report(workload)


def passed(state: TrainingState, reason: str | None, workload: Workload, verdict: Verdict) -> list[Verdict]:
    """What a training went through between what it shows (`state`, `reason`) and the verdict: steps that began and ended between two looks.

    The report of the run tells them. Where several instances run, each step of the one that is furthest behind is looked at instead.
    """
    if len(workload.status.instances) != 1 or verdict.state in _NOT_RETOLD_TO:
        return []
    begin, end = _place(state, reason), _place(verdict.state, verdict.reason)
    told: dict[int, Verdict] = {}
    items = workload.report.get("steps")
    has_failed = _has_failed(workload.report)
    for item in cast("list[Any]", items) if isinstance(items, list) else []:
        step = cast("Mapping[str, Any]", item).get("step") if isinstance(item, Mapping) else None
        place = _ORDER.index(step) if step in _ORDER else -1
        furthest = max(told, default=begin)
        if furthest < place < end:  # each once, in their order: a report may say anything
            told[place] = _step_verdict(_ORDER[place], cast("Mapping[str, Any]", item), has_failed=has_failed)
    return list(told.values())


def _place(state: TrainingState, reason: str | None) -> int:
    """How far a training is, on the scale of `_ORDER`."""
    match state:
        case TrainingState.CREATE_REQUESTED | TrainingState.CREATE_IN_PROGRESS:
            step = (reason or "").lower()
            return _ORDER.index(step) if step in _ORDER else -1
        case TrainingState.RUNNING:
            return _ORDER.index("running")
        case TrainingState.COMPLETE | TrainingState.FAIL_TRAIN:
            return len(_ORDER)
        case _:
            return _ORDER.index("uploading")


def _step_verdict(step: str, item: Mapping[str, Any], *, has_failed: bool) -> Verdict:
    detail, begun = item.get("detail"), item.get("started_at")
    message = detail[:500] if isinstance(detail, str) and detail else None
    at = None
    if isinstance(begun, str):
        with suppress(ValueError, OverflowError):
            at = datetime.fromisoformat(begun).astimezone(UTC)
    match _STEPS[step]:
        case 1 | 2:
            return Verdict(TrainingState.CREATE_IN_PROGRESS, step.upper(), message, at)
        case 3:
            return Verdict(TrainingState.RUNNING, at=at)
        case _:
            state = TrainingState.FAIL_TRAIN_IN_PROGRESS if has_failed else TrainingState.COMPLETE_IN_PROGRESS
            return Verdict(state, "UPLOADING", message, at)


def _judge_by_report(workload: Workload) -> Verdict:
    """The runner's own word tells which step it is at. It is the instance's word alone, so it decides nothing but what is shown."""
    if workload.desired is not Desired.RUN:
        return Verdict(TrainingState.STOP_IN_PROGRESS, "STOP_REQUESTED", "Stopping: the processes are asked to end.")
    if workload.reason in _WORKLOAD_REASONS:
        return Verdict(TrainingState.CREATE_IN_PROGRESS, workload.reason, workload.message)
    reports = [seen.report for seen in workload.status.instances] or [{}]
    if any(_has_failed(report) for report in reports):
        failed = next(report for report in reports if _has_failed(report))
        step = "UPLOADING" if failed.get("step") == "uploading" else "ENDING"
        return Verdict(TrainingState.FAIL_TRAIN_IN_PROGRESS, step, workload.message or _sentence(failed))
    steps = [_STEPS.get(step) if isinstance(step := report.get("step"), str) else None for report in reports]
    place = min(step or 0 for step in steps)
    index = next(index for index, step in enumerate(steps) if (step or 0) == place)
    where = f"Instance {index}: " if len(reports) > 1 else ""
    sentence = _sentence(reports[index])
    match place:
        case 0:
            what = f"{where}it is starting." if where else "The instance is starting."
            return Verdict(TrainingState.CREATE_IN_PROGRESS, "STARTING", what)
        case 1 | 2:
            step = str(reports[index]["step"]).upper()
            return Verdict(TrainingState.CREATE_IN_PROGRESS, step, sentence and f"{where}{sentence}")
        case 3:
            return Verdict(TrainingState.RUNNING)
        case _:
            return Verdict(TrainingState.COMPLETE_IN_PROGRESS, "UPLOADING", sentence and f"{where}{sentence}")


def _has_failed(report: Mapping[str, Any]) -> bool:
    exit_code = report.get("exit_code")
    return report.get("step") == "failed" or (isinstance(exit_code, int) and exit_code != 0)


def _sentence(report: Mapping[str, Any]) -> str | None:
    message = report.get("message")
    return message[:500] if isinstance(message, str) and message else None
