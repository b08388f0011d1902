"""What a training shows for each thing that can be seen of its workload."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from modelyard.kit.clock import utc_now
from modelyard.resources.trainings.decision import Verdict, judge, passed
from modelyard.resources.trainings.lifecycle import LIFECYCLE, TrainingState
from modelyard.resources.workloads.lifecycle import LIFECYCLE as WORKLOAD_LIFECYCLE
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import Desired, InstanceSeen, Workload, WorkloadStatus
from modelyard.testing.workloads import workload_spec

REPORTS: list[dict[str, Any]] = [
    {},
    {"step": "fetching", "message": "fetching 3 of 7 files"},
    {"step": "installing"},
    {"step": "preparing"},
    {"step": "running"},
    {"step": "uploading", "exit_code": 0},
    {"step": "uploading", "exit_code": 1},
    {"step": "done", "exit_code": 0},
    {"step": "failed", "message": "no such file"},
    {"step": 7, "message": ["a"], "exit_code": "x"},
    {"step": None},
    {"step": {"a": 1}, "message": "x" * 5000},
]


def workload(
    state: WorkloadState,
    report: dict[str, Any] | None = None,
    desired: Desired = Desired.RUN,
    reason: str | None = None,
    message: str | None = None,
) -> Workload:
    return Workload(
        id="w",
        project_id="p",
        spec=workload_spec(),
        status=WorkloadStatus(instances=(InstanceSeen(id="w.0.0", index=0, report=report or {}),)),
        desired=desired,
        state=state,
        reason=reason,
        message=message,
        created_at=utc_now(),
    )


@pytest.mark.parametrize(
    ("seen", "state", "reason"),
    [
        (workload(WorkloadState.SUCCEEDED), TrainingState.COMPLETE, None),
        (workload(WorkloadState.STOPPED), TrainingState.STOPPED, "STOPPED"),
        (workload(WorkloadState.FAILED, reason="LAUNCH_FAILED"), TrainingState.CREATE_FAILED, "LAUNCH_FAILED"),
        (workload(WorkloadState.FAILED, reason="OUT_OF_MEMORY"), TrainingState.FAIL_TRAIN, "OUT_OF_MEMORY"),
        (workload(WorkloadState.PENDING), TrainingState.CREATE_IN_PROGRESS, "WAITING"),
        (
            workload(WorkloadState.PENDING, reason="WAITING_FOR_ROOM"),
            TrainingState.CREATE_IN_PROGRESS,
            "WAITING_FOR_ROOM",
        ),
        (workload(WorkloadState.STOPPING), TrainingState.STOP_IN_PROGRESS, None),
        (workload(WorkloadState.RUNNING, desired=Desired.STOP), TrainingState.STOP_IN_PROGRESS, "STOP_REQUESTED"),
        (workload(WorkloadState.RUNNING, REPORTS[0]), TrainingState.CREATE_IN_PROGRESS, "STARTING"),
        (workload(WorkloadState.RUNNING, REPORTS[1]), TrainingState.CREATE_IN_PROGRESS, "FETCHING"),
        (workload(WorkloadState.RUNNING, REPORTS[4]), TrainingState.RUNNING, None),
        (workload(WorkloadState.RUNNING, REPORTS[5]), TrainingState.COMPLETE_IN_PROGRESS, "UPLOADING"),
        (workload(WorkloadState.RUNNING, REPORTS[6]), TrainingState.FAIL_TRAIN_IN_PROGRESS, "UPLOADING"),
        (workload(WorkloadState.RUNNING, REPORTS[8]), TrainingState.FAIL_TRAIN_IN_PROGRESS, "ENDING"),
    ],
)
def test_the_word_on_the_screen(seen: Workload, state: TrainingState, reason: str | None) -> None:
    verdict = judge(seen)
    assert (verdict.state, verdict.reason) == (state, reason)


@pytest.mark.parametrize(
    ("state", "report", "desired"), list(itertools.product(WorkloadState, REPORTS, [Desired.RUN, Desired.STOP]))
)
def test_every_state_with_every_report_is_judged(
    state: WorkloadState, report: dict[str, Any], desired: Desired
) -> None:
    """The report is the process's own word: whatever it says, it neither breaks anything nor ends the training."""
    verdict = judge(workload(state, report, desired))
    assert LIFECYCLE.is_final(verdict.state) == WORKLOAD_LIFECYCLE.is_final(state)
    assert verdict.message is None or len(verdict.message) <= 500


ALIVE = [state for state in WorkloadState if not WORKLOAD_LIFECYCLE.is_final(state)]


def faces(state: WorkloadState, desired: Desired) -> set[TrainingState]:
    reasons = ["LAUNCH_FAILED", "EXITED"] if state is WorkloadState.FAILED else [None]
    return {judge(workload(state, report, desired, reason)).state for report in REPORTS for reason in reasons}


@pytest.mark.parametrize(
    ("old", "new", "desired"),
    [
        (old, new, desired)
        for old in ALIVE
        for new in (old, *sorted(WORKLOAD_LIFECYCLE.moves[old]))
        for desired in (Desired.RUN, Desired.STOP)
    ],
)
def test_no_move_of_a_workload_asks_for_a_move_that_a_training_does_not_have(
    old: WorkloadState, new: WorkloadState, desired: Desired
) -> None:
    """Otherwise its reconciler would fail again and again, and the training would stand still for ever."""
    missing = {
        f"{before} → {after}"
        for before in faces(old, Desired.RUN)
        for after in faces(new, desired)
        if before != after and not LIFECYCLE.is_final(before) and after not in LIFECYCLE.moves[before]
    }
    assert missing == set()


@pytest.mark.parametrize(
    ("reports", "state", "message"),
    [
        ([{"step": "waiting", "message": "w"}, {}], TrainingState.CREATE_IN_PROGRESS, "Instance 1: it is starting."),
        (
            [{"step": "waiting", "message": "w"}, {"step": "fetching", "message": "2 of 3 files"}],
            TrainingState.CREATE_IN_PROGRESS,
            "Instance 1: 2 of 3 files",
        ),
        ([{"step": "uploading"}, {"step": "running"}], TrainingState.RUNNING, None),
        (
            [{"step": "running"}, {"step": "running", "exit_code": 3, "message": "exit 3"}],
            TrainingState.FAIL_TRAIN_IN_PROGRESS,
            "exit 3",
        ),
    ],
)
def test_a_run_is_as_far_as_the_last_of_its_instances(
    reports: list[dict[str, Any]], state: TrainingState, message: str | None
) -> None:
    instances = tuple(InstanceSeen(id=f"w.{n}.0", index=n, report=report) for n, report in enumerate(reports))
    seen = workload(WorkloadState.RUNNING).model_copy(update={"status": WorkloadStatus(instances=instances)})
    verdict = judge(seen)
    assert (verdict.state, verdict.message) == (state, message)


@pytest.mark.parametrize("reason", ["RESTART", "LAUNCHING", "LAUNCH_UNDONE"])
def test_what_the_workload_waits_for_is_shown(reason: str) -> None:
    verdict = judge(workload(WorkloadState.STARTING, reason=reason, message="why"))
    assert (verdict.state, verdict.reason, verdict.message) == (TrainingState.CREATE_IN_PROGRESS, reason, "why")


STEPS = ["fetching", "installing", "running", "uploading"]


def told(*steps: object, **more: Any) -> dict[str, Any]:
    last = steps[-1] if steps else None
    listed = [{"step": step, "started_at": "2026-01-02T03:04:05.678Z", "detail": f"{step}."} for step in steps]
    return {"step": last, "steps": listed} | more


@pytest.mark.parametrize(
    ("shown", "seen", "between"),
    [
        (
            (TrainingState.CREATE_IN_PROGRESS, "STARTING"),
            workload(WorkloadState.SUCCEEDED, told(*STEPS, step="done", exit_code=0)),
            ["FETCHING", "INSTALLING", "RUNNING", "COMPLETE_IN_PROGRESS"],
        ),
        (
            (TrainingState.CREATE_IN_PROGRESS, "FETCHING"),
            workload(WorkloadState.RUNNING, told(*STEPS)),
            ["INSTALLING", "RUNNING"],
        ),
        ((TrainingState.RUNNING, None), workload(WorkloadState.RUNNING, told(*STEPS)), []),
        (
            (TrainingState.RUNNING, None),
            workload(WorkloadState.FAILED, told(*STEPS, step="failed", exit_code=3), reason="EXITED"),
            ["FAIL_TRAIN_IN_PROGRESS"],
        ),
        (
            (TrainingState.COMPLETE_IN_PROGRESS, "UPLOADING"),  # what was to be kept could not be
            workload(WorkloadState.FAILED, told(*STEPS, step="failed", exit_code=74), reason="EXITED"),
            [],
        ),
        (
            (TrainingState.CREATE_IN_PROGRESS, "RESTART"),
            workload(WorkloadState.RUNNING, told(*STEPS[:3])),
            ["FETCHING", "INSTALLING"],
        ),
        ((TrainingState.RUNNING, None), workload(WorkloadState.RUNNING, told("fetching")), []),  # another attempt
        (
            (TrainingState.CREATE_IN_PROGRESS, "STARTING"),
            workload(WorkloadState.STOPPED, told(*STEPS), desired=Desired.STOP),
            [],
        ),
        (
            (TrainingState.CREATE_IN_PROGRESS, "STARTING"),
            workload(WorkloadState.SUCCEEDED, told(*["running", "fetching", 7, None, "done", {}] * 100)),
            ["RUNNING"],
        ),
        ((TrainingState.CREATE_IN_PROGRESS, "STARTING"), workload(WorkloadState.SUCCEEDED, {"steps": "all"}), []),
        ((TrainingState.CREATE_IN_PROGRESS, "STARTING"), workload(WorkloadState.SUCCEEDED, {"steps": [1, None]}), []),
    ],
)
def test_steps_between_two_looks_are_told(
    shown: tuple[TrainingState, str | None], seen: Workload, between: list[str]
) -> None:
    steps = passed(*shown, seen, judge(seen))
    names = [step.reason if step.state is TrainingState.CREATE_IN_PROGRESS else step.state.value for step in steps]
    assert names == between
    states = [shown[0], *(step.state for step in steps), judge(seen).state]
    for old, new in itertools.pairwise(states):
        LIFECYCLE.check(old, new)


@pytest.mark.parametrize("begun", ["yesterday", "9999-12-31T23:59:59-23:59", 7, None, "2026-01-02T03:04:05.678Z"])
def test_when_a_step_began_is_told_if_it_is_a_time(begun: object) -> None:
    report = {"steps": [{"step": "fetching", "started_at": begun, "detail": 7}]}
    [step] = passed(
        TrainingState.CREATE_REQUESTED, None, workload(WorkloadState.SUCCEEDED, report), Verdict(TrainingState.COMPLETE)
    )
    assert step.message is None
    assert (step.at is not None) == (begun == "2026-01-02T03:04:05.678Z")
