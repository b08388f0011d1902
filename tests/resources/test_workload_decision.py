"""What is decided for everything that can be seen of a workload: the pure part, without database or backend."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.compute.port import Cause, Exit, Observation, Phase
from modelyard.kit.clock import utc_now
from modelyard.resources.workloads.decision import decide
from modelyard.resources.workloads.lifecycle import LIFECYCLE, WorkloadState
from modelyard.resources.workloads.model import (
    Desired,
    InstanceSeen,
    Workload,
    WorkloadStatus,
    plain_report,
    plain_text,
)
from modelyard.resources.workloads.sight import fresh_instances, look
from modelyard.testing.workloads import workload_spec

NOW = utc_now()
ADMITTED = [WorkloadState.STARTING, WorkloadState.RUNNING, WorkloadState.STOPPING]


def workload(state: WorkloadState = WorkloadState.RUNNING, desired: Desired = Desired.RUN, **spec: Any) -> Workload:
    made = Workload(
        id="w",
        project_id="p",
        spec=workload_spec(**spec),
        status=WorkloadStatus(),
        desired=desired,
        state=state,
        reason=None,
        message=None,
        created_at=NOW,
    )
    return made.model_copy(update={"status": WorkloadStatus(instances=fresh_instances(made, 0))})


def observation(each: InstanceSeen, phase: Phase, how: Exit | None = None, **more: Any) -> Observation:
    started_at = None if phase in (Phase.ABSENT, Phase.STARTING) else NOW
    return Observation(
        each.id, phase, exit=how, started_at=started_at, ended_at=NOW if how is not None else None, **more
    )


def test_what_was_launched_and_is_absent_is_lost() -> None:
    item = InstanceSeen(id="w.0.0", index=0, is_launched=True, phase="RUNNING", is_ready=True)
    seen = look(item, Observation("w.0.0", Phase.ABSENT), is_ready=False)
    assert seen.exit is not None
    assert (seen.phase, seen.exit.cause, seen.is_ready) == ("EXITED", "LOST", False)
    assert look(seen, Observation("w.0.0", Phase.ABSENT), is_ready=False) == seen
    never = InstanceSeen(id="w.0.0", index=0)
    assert look(never, None, is_ready=False) == never


def test_what_runs_though_its_launch_was_not_confirmed_is_adopted() -> None:
    seen = look(InstanceSeen(id="w.0.0", index=0), Observation("w.0.0", Phase.RUNNING, started_at=NOW), is_ready=True)
    assert (seen.is_launched, seen.phase) == (True, "RUNNING")


def test_a_busy_server_keeps_its_requests_for_some_silent_looks() -> None:
    running = Observation("w.0.0", Phase.RUNNING, started_at=NOW)
    item = look(InstanceSeen(id="w.0.0", index=0), running, is_ready=False)
    assert not item.is_ready
    item = look(item, running, is_ready=True)
    silent = []
    for _ in range(7):
        item = look(item, running, is_ready=False)
        silent.append(item.is_ready)
    assert silent == [True, True, True, True, False, False, False]
    assert look(item, running, is_ready=False) == item  # and then nothing looks new any more
    assert look(item, running, is_ready=True).is_ready
    assert not look(item, observation(item, Phase.EXITED, Exit(Cause.EXITED, "x", code=0)), is_ready=False).is_ready


EXITS = st.builds(
    lambda cause, code: Exit(cause, "it ended", code=code if cause is Cause.EXITED else None),
    st.sampled_from(list(Cause)),
    st.integers(0, 2),
)
SIGHTS = st.one_of(
    st.none(),
    st.just((Phase.ABSENT, None)),
    st.just((Phase.STARTING, None)),
    st.just((Phase.RUNNING, None)),
    st.tuples(st.just(Phase.EXITED), EXITS),
)


@settings(max_examples=400, deadline=None)
@given(
    state=st.sampled_from(ADMITTED),
    restart=st.sampled_from(["never", "always"]),
    sights=st.lists(st.tuples(SIGHTS, st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=4),
    wants_stop=st.booleans(),
    lost_count=st.integers(0, 4),
)
def test_every_decision_is_a_move_that_exists(
    state: WorkloadState,
    restart: str,
    sights: list[tuple[tuple[Phase, Exit | None] | None, bool, bool, bool]],
    wants_stop: bool,
    lost_count: int,
) -> None:
    """And it keeps the promises: nothing final while something runs, nothing launched twice, nothing started that is not wanted."""
    is_stopping = wants_stop or state is WorkloadState.STOPPING
    desired = Desired.STOP if is_stopping else Desired.RUN
    made = workload(state, desired, instances=len(sights), restart=restart, lost_restarts=3)
    instances = tuple(
        item.model_copy(update={"is_launched": is_launched, "was_ready": was_ready})
        for item, (_, is_launched, was_ready, _) in zip(made.status.instances, sights, strict=True)
    )
    made = made.model_copy(update={"status": WorkloadStatus(instances=instances, lost_count=lost_count)})
    seen = {
        item.id: observation(item, sight[0], sight[1])
        for item, (sight, *_) in zip(instances, sights, strict=True)
        if sight is not None
    }
    ready = {item.id: is_ready for item, (*_, is_ready) in zip(instances, sights, strict=True)}
    decision = decide(made, seen, ready, NOW)

    LIFECYCLE.check(state, decision.state)
    alive = {each.id for each in seen.values() if each.phase in (Phase.STARTING, Phase.RUNNING)}
    if LIFECYCLE.is_final(decision.state):
        assert not alive, "over, and yet something runs"
        assert not decision.launch
    else:
        waits = decision.again_after_seconds is not None
        may_come = alive or decision.launch or decision.state is WorkloadState.PENDING or waits
        assert may_come, "nothing is running, nothing is to be done, and it is not over"
    assert set(decision.stop) <= alive | {item.id for item in instances if item.is_launched}
    launched = {item.id for item in decision.status.instances if item.index in decision.launch}
    assert launched.isdisjoint(alive)
    if desired is Desired.STOP:
        assert not decision.launch
        assert alive <= set(decision.stop)
    assert [item.index for item in decision.status.instances] == list(range(len(sights)))
    if decision.state is WorkloadState.FAILED:
        assert decision.reason
        assert decision.message


def test_the_time_that_is_left_until_an_instance_must_be_ready() -> None:
    made = workload(restart="always", socket="http", ready_path="/ready", ready_seconds=100)
    (item,) = made.status.instances
    seen = {item.id: Observation(item.id, Phase.RUNNING, started_at=NOW - timedelta(seconds=40))}
    decision = decide(made, seen, {}, NOW)
    assert (decision.state, decision.again_after_seconds) == (WorkloadState.STARTING, 60.0)
    assert decide(made, seen, {item.id: True}, NOW).again_after_seconds is None


def test_a_server_that_has_fallen_silent_is_started_again() -> None:
    made = workload(restart="always", socket="http", ready_path="/ready", silent_seconds=60, ready_seconds=600)
    (item,) = made.status.instances

    def after(seconds: float, phase: Phase = Phase.RUNNING, how: Exit | None = None, *, is_ready: bool = False) -> Any:
        nonlocal made, item
        now = NOW + timedelta(seconds=seconds)
        decision = decide(made, {item.id: observation(item, phase, how)}, {item.id: is_ready}, now)
        made = made.model_copy(update={"status": decision.status})
        (item,) = decision.status.instances
        return decision

    after(0)
    after(1, is_ready=True)
    for seconds in range(2, 7):  # several silent looks
        after(seconds)
    assert (item.is_ready, item.silent_since) == (False, NOW + timedelta(seconds=6))
    after(20, is_ready=True)
    assert item.silent_since is None
    for seconds in range(21, 26):
        assert after(seconds).stop == ()
    assert after(80).again_after_seconds == 5.0
    assert after(86).stop == (item.id,)
    assert after(87).stop == (item.id,)

    ended = after(88, Phase.EXITED, Exit(Cause.STOPPED, "asked to end"))
    assert (ended.state, ended.launch, item.id) == (WorkloadState.STARTING, (0,), "w.0.1")
    assert after(89).stop == ()  # it is loading: it has the time of a first start
    assert after(700).stop == (item.id,)
    ended = after(701, Phase.EXITED, Exit(Cause.STOPPED, "asked to end"))
    assert (ended.launch, ended.stop) == ((), ())  # with back-off
    assert ended.state is not WorkloadState.FAILED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_report_that_is_kept_is_plain_and_keeping_it_again_changes_nothing(report: dict[str, Any]) -> None:
    import json

    kept = plain_report(report)
    text = json.dumps(kept, allow_nan=False, ensure_ascii=False)
    text.encode()  # no half surrogates
    assert "\\u0000" not in text
    assert plain_report(kept) == kept


def test_plain_reports_stay_as_they_are() -> None:
    report = {"step": "fetching", "message": "3 of 7 files, 한국어", "progress": 0.4, "exit_code": 0, "done": False}
    assert plain_report(report) == report
    assert plain_report({"a": object(), "b": {"c": {1, 2}}}) == {"a": None, "b": {"c": None}}
    assert len(plain_text("x" * 10**6)) == 8000
