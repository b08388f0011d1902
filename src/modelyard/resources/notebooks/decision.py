"""What a notebook's state should be, given what is seen of its workload. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from modelyard.resources.notebooks.lifecycle import CREATING, NotebookState
from modelyard.resources.notebooks.model import NotebookStatus, Step
from modelyard.resources.workloads.lifecycle import WorkloadState
from modelyard.resources.workloads.model import InstanceSeen, Workload

_MAX_STEPS = 20
_MAX_NAMES = 100
_IDLE_STEP, _RUNNING_STEP, _SCRIPTS_STEP = "idle", "running", "scripts"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state, and why, for a person."""

    state: NotebookState
    reason: str | None = None
    message: str | None = None


def starting(old: NotebookState) -> NotebookState:
    """The word for a start that goes on: the first one is called creation."""
    return NotebookState.CREATE_IN_PROGRESS if old in CREATING else NotebookState.START_IN_PROGRESS


def failed(old: NotebookState) -> NotebookState:
    """The word for a start that failed."""
    return NotebookState.CREATE_FAILED if old in CREATING else NotebookState.START_FAILED


def judge(old: NotebookState, workload: Workload) -> Verdict:
    """The state of a notebook that is to run and whose workload is seen like this."""
    seen = workload.status.instances[0]
    match workload.state:
        case WorkloadState.FAILED | WorkloadState.STOPPED | WorkloadState.SUCCEEDED:
            return Verdict(failed(old), workload.reason or "ENDED", _ending(workload, seen))
        case _ if seen.is_ready:
            return Verdict(NotebookState.ACTIVE_HEALTHY)
        case _ if seen.was_ready:
            return Verdict(NotebookState.ACTIVE_UNHEALTHY, *_unhealthy(workload, seen))
        case WorkloadState.PENDING:
            return Verdict(starting(old), workload.reason or "WAITING", workload.message)
        case _:
            return Verdict(starting(old), *_step(seen.report))


def wants_to_sleep(workload: Workload, idle_minutes: int | None) -> bool:
    """Whether the notebook says that nobody has used it for as long as was asked for."""
    return idle_minutes is not None and workload.report.get("step") == _IDLE_STEP


def status_seen(status: NotebookStatus, workload: Workload) -> NotebookStatus:
    """What the notebook itself reports, as far as it makes sense: it is the user's own process that says so."""
    report = workload.report
    started_at = workload.status.instances[0].started_at or status.started_at
    last_activity_at = _moment(report.get("last_activity")) or status.last_activity_at
    return status.model_copy(
        update={
            "started_at": _since_given(started_at, status),
            "last_activity_at": _since_given(last_activity_at, status),
            "steps": _steps(report.get("steps")) or status.steps,
            "disk": _disk(report.get("disk")) or status.disk,
            "kept": _names(report.get("kept")),
            "reset": _names(report.get("reset")),
        }
    )


def _since_given(moment: datetime | None, status: NotebookStatus) -> datetime | None:
    """What was before it was given to its user is not its user's."""
    return moment if moment is None or status.given_at is None else max(moment, status.given_at)


def _ending(workload: Workload, seen: InstanceSeen) -> str:
    """Why a start ended, and where it was then."""
    why, (step, doing) = workload.message or "Its process ended.", _step(seen.report)
    if doing in why or step == _RUNNING_STEP.upper():
        return why
    advice = " Start it without its start-up scripts to mend them." if step == _SCRIPTS_STEP.upper() else ""
    return f"{why} That was at the step: {doing}{advice}"


def _unhealthy(workload: Workload, seen: InstanceSeen) -> tuple[str, str]:
    if workload.state is WorkloadState.PENDING:
        return workload.reason or "WAITING", workload.message or "Waiting for room."
    if seen.exit is not None:
        return "RESTARTING", f"The notebook is started again: {seen.exit.message}"
    if seen.phase != "RUNNING" or seen.report.get("step") not in (None, _RUNNING_STEP, _IDLE_STEP):
        message = seen.report.get("message")
        sentence = message[:500] if isinstance(message, str) and message else "The notebook is starting again."
        return "RESTARTING", sentence
    return "NOT_ANSWERING", "The Jupyter server does not answer. Stop and start the notebook if this lasts."


def _step(report: Mapping[str, Any]) -> tuple[str, str]:
    step, message = report.get("step"), report.get("message")
    if isinstance(step, str) and isinstance(message, str) and message:
        return step.upper()[:32], message[:500]
    return "STARTING", "The instance is starting."


def _steps(value: Any) -> tuple[Step, ...]:
    if not isinstance(value, list):
        return ()
    found: list[Step] = []
    for item in cast(list[Any], value)[:_MAX_STEPS]:
        if not isinstance(item, dict):
            continue
        fields = cast(dict[str, Any], item)
        name, seconds, detail = fields.get("step"), fields.get("seconds"), fields.get("detail")
        if isinstance(name, str):
            found.append(
                Step(
                    name=name[:64],
                    seconds=float(seconds) if isinstance(seconds, int | float) else None,
                    detail=detail[:500] if isinstance(detail, str) else "",
                )
            )
    return tuple(found)


def _names(value: Any) -> tuple[str, ...]:
    items = cast(list[Any], value)[:_MAX_NAMES] if isinstance(value, list) else []
    return tuple(item[:200] for item in items if isinstance(item, str))


def _moment(value: Any) -> datetime | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 2**34:
        return None
    return datetime.fromtimestamp(value, tz=UTC)


def _disk(value: Any) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    if isinstance(value, dict):
        for name in ("boot", "data"):
            pair = cast(dict[str, Any], value).get(name)
            if isinstance(pair, list) and len(cast(list[Any], pair)) == 2:
                used, total = cast(list[Any], pair)
                if isinstance(used, int) and isinstance(total, int):
                    found[name] = (used, total)
    return found
