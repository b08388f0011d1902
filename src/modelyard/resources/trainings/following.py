"""What a training shows of its workload, written in the transaction that writes what is new of the workload.

That way most steps of a training cost no turn of its own: no hint through the queue, no lease, no second transaction. What needs more than
the two rows (a wish to stop or to delete, the last lines of one that failed) is left to `TrainingReconciler`, as is a row that somebody else
is writing.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.transitions import move
from modelyard.kit.clock import utc_now
from modelyard.kit.lifecycle import MoveNotAllowed
from modelyard.resources.trainings import repository
from modelyard.resources.trainings.decision import Verdict, judge, passed
from modelyard.resources.trainings.lifecycle import LIFECYCLE, TrainingState
from modelyard.resources.trainings.model import TrainingStatus
from modelyard.resources.trainings.provenance import with_inputs
from modelyard.resources.trainings.table import TrainingRow
from modelyard.resources.workloads.model import InstanceSeen, Workload

FAILURES = frozenset({TrainingState.FAIL_TRAIN, TrainingState.CREATE_FAILED})
"""What is shown together with the last lines of the output."""


async def follow(session: AsyncSession, workload: Workload) -> bool:
    """Show what is seen of the workload now, fenced by the lease on the workload; False where the training's reconciler has to look itself."""
    verdict = judge(workload)
    if verdict.state in FAILURES:
        return False
    row = await repository.free(session, workload.spec.owner_id)
    if row is None or row.desired != "run" or LIFECYCLE.is_final(TrainingState(row.state)):
        return False
    try:
        show(session, row, workload, verdict, ())
    except MoveNotAllowed:
        return False  # the reconciler fails on it and says so; the workload goes on
    return True


def show(
    session: AsyncSession, row: TrainingRow, workload: Workload, verdict: Verdict, last_lines: tuple[str, ...]
) -> None:
    """Write the verdict on a workload to its training, and into the history what went before it and was not seen."""
    for step in passed(TrainingState(row.state), row.reason, workload, verdict):
        _retell(session, row, step)
    show_verdict(session, row, verdict)
    row.status = _status(row, verdict, workload, last_lines)  # last: a move that is not allowed leaves it as it was


def show_verdict(session: AsyncSession, row: TrainingRow, verdict: Verdict) -> None:
    """Move the training, if that is news."""
    old = TrainingState(row.state)
    if old == verdict.state and verdict.reason == row.reason:
        row.message = verdict.message  # progress of a step is not history: no event for each line of it
        return
    move(session, LIFECYCLE, row, verdict.state, reason=verdict.reason, message=verdict.message)


def _retell(session: AsyncSession, row: TrainingRow, step: Verdict) -> None:
    """Write a step into the history that is over by now. When it was is the run's own word: never before what came before it, nor ahead."""
    now = utc_now()
    at = now if step.at is None else min(now, max(step.at, row.updated_at))
    move(session, LIFECYCLE, row, step.state, reason=step.reason, message=step.message, at=at)


def is_shown(row: TrainingRow, verdict: Verdict, workload: Workload, last_lines: tuple[str, ...]) -> bool:
    """Whether the training shows all of this already."""
    is_told = (row.state, row.reason, row.message) == (verdict.state.value, verdict.reason, verdict.message)
    return is_told and row.status == _status(row, verdict, workload, last_lines)


def _status(row: TrainingRow, verdict: Verdict, workload: Workload, last_lines: tuple[str, ...]) -> dict[str, Any]:
    status = TrainingStatus.model_validate(row.status)
    blamed = workload.failed or next((seen for seen in workload.status.instances if seen.exit is not None), None)
    return status.model_copy(
        update={
            "started_at": status.started_at or workload.started_at,
            "ended_at": workload.ended_at if LIFECYCLE.is_final(verdict.state) else None,
            "exit_code": _exit_code(blamed),
            "restart_count": workload.status.failure_count,
            "last_lines": last_lines or status.last_lines,
            "provenance": with_inputs(status.provenance, workload.report),
        }
    ).model_dump(mode="json")


def _exit_code(seen: InstanceSeen | None) -> int | None:
    if seen is None or seen.exit is None:
        return None
    return seen.exit.code if seen.exit.code is not None or seen.exit.signal is None else -seen.exit.signal
