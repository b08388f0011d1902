"""What a training's state should be, given what is seen of its workload. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.resources.trainings.lifecycle import TrainingState
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Desired, Workload

_STEPS_BEFORE_RUN = frozenset({"fetching", "installing", "preparing"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state, and why, for a person."""

    state: TrainingState
    reason: str | None = None
    message: str | None = None


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


def _judge_by_report(workload: Workload) -> Verdict:
    """The runner's own word tells which step it is at. It is the instance's word alone, so it decides nothing but what is shown."""
    if workload.desired is not Desired.RUN:
        return Verdict(TrainingState.STOP_IN_PROGRESS, "STOP_REQUESTED", "Stopping: the processes are asked to end.")
    report = workload.report
    step = report.get("step")
    message = report.get("message")
    sentence = message[:500] if isinstance(message, str) and message else None
    exit_code = report.get("exit_code")
    if step == "running":
        return Verdict(TrainingState.RUNNING)
    if step in ("uploading", "done"):
        has_failed = isinstance(exit_code, int) and exit_code != 0
        state = TrainingState.FAIL_TRAIN_IN_PROGRESS if has_failed else TrainingState.COMPLETE_IN_PROGRESS
        return Verdict(state, "UPLOADING", sentence)
    if step == "failed":
        return Verdict(TrainingState.FAIL_TRAIN_IN_PROGRESS, "ENDING", sentence)
    if isinstance(step, str) and step in _STEPS_BEFORE_RUN:
        return Verdict(TrainingState.CREATE_IN_PROGRESS, step.upper(), sentence)
    return Verdict(TrainingState.CREATE_IN_PROGRESS, "STARTING", "The instance is starting.")
