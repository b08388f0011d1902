"""How many model servers there should be, for every course that a load can take."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelyard.resources.endpoints.model import Metric, Scaling
from modelyard.resources.endpoints.scaling import History, Wish, wish

STEP = 2.0
SCALING = Scaling(min_count=1, max_count=4, target=8.0, unneeded_seconds=60.0, delay_after_add_seconds=120.0)


class Course:
    """A load over time, and the servers that follow it."""

    def __init__(self, scaling: Scaling = SCALING, count: int = 1) -> None:
        self.scaling = scaling
        self.count = count
        self.now = 1000.0
        self.history = History(self.now, self.now)
        self.wishes: list[Wish] = []

    def go(self, seconds: float, load: float | Callable[[float], float]) -> list[int]:
        """Let time pass under a load; the numbers of servers that there were."""
        counts: list[int] = []
        until = self.now + seconds
        while self.now < until:
            self.now += STEP
            value = load if isinstance(load, int | float) else load(self.now)
            self.history.add(self.now, value, is_active=value > 0)
            self.look()
            counts.append(self.count)
        return counts

    def look(self, *, is_waited_for: bool = False) -> None:
        self.history.forget_before(self.now - self.scaling.unneeded_seconds)
        found = wish(
            self.scaling, Metric.CONCURRENCY, self.scaling.target, self.count, self.history, self.now,
            is_waited_for=is_waited_for,
        )  # fmt: skip
        if found is not None:
            assert found.count != self.count
            self.wishes.append(found)
            if found.count > self.count:
                self.history.added_at = self.history.active_at = self.now
            self.count = found.count


def test_more_servers_come_within_seconds_as_many_as_the_load_needs() -> None:
    course = Course()
    course.go(20, 4)
    assert course.count == 1
    counts = course.go(10, 30)
    assert counts[-1] == 4
    assert course.wishes[-1].reason == "SCALING_UP"
    assert course.wishes[0].message.endswith("requests at once in the last 6 s, and one server is to have 8.")
    course.go(10, 1000)
    assert course.count == 4  # never more than the most


def test_one_sample_is_no_load() -> None:
    course = Course()
    course.history.add(course.now, 500.0, is_active=True)
    course.look()
    assert course.count == 1


def test_servers_go_only_after_a_long_quiet_while_and_not_soon_after_they_came() -> None:
    course = Course()
    course.go(20, 16)
    assert course.count == 2
    assert set(course.go(96, 0.5)) == {2}  # quiet for longer than a minute, and yet too soon after it grew
    counts = course.go(30, 0.5)
    assert counts[-1] == 1
    assert [each.reason for each in course.wishes] == ["SCALING_UP", "SCALING_DOWN"]
    assert "less than 50 % of what 2 servers are to have" in course.wishes[-1].message


def test_a_load_that_swings_does_not_make_the_number_swing() -> None:
    course = Course(SCALING.model_copy(update={"delay_after_add_seconds": 0.0}))
    counts = course.go(600, lambda now: 20.0 if int(now / 20) % 2 else 1.0)
    assert set(counts[30:]) == {3}


def test_a_load_at_the_edge_leaves_the_number_alone() -> None:
    course = Course(SCALING.model_copy(update={"delay_after_add_seconds": 0.0}))
    course.go(200, 8.5)  # within the tolerance
    assert course.count == 1
    course.count = 2
    course.go(200, 8.5)  # a bit more than half of what two should have
    assert course.count == 2


def test_nothing_is_taken_away_for_what_was_not_looked_at() -> None:
    course = Course(SCALING.model_copy(update={"delay_after_add_seconds": 0.0}), count=3)
    assert set(course.go(58, 0)) == {3}
    assert course.go(10, 0)[-1] == 1


def test_without_patience_servers_go_one_look_after_the_load_and_not_before() -> None:
    course = Course(SCALING.model_copy(update={"unneeded_seconds": 0.0, "delay_after_add_seconds": 0.0}))
    assert set(course.go(120, 16)[10:]) == {2}
    assert course.go(20, 0.1)[-1] == 1
    assert len(course.wishes) == 2


def test_nothing_but_a_waiting_request_moves_what_was_not_measured_now() -> None:
    scaling = SCALING.model_copy(update={"min_count": 0, "idle_seconds": 1.0})
    history = History(0.0, 0.0)
    for at in range(20):
        history.add(float(at), 500.0 if at < 10 else 0.0, is_active=False)
    for count, is_waited_for, expected in ((1, False, None), (1, True, None), (0, True, 1), (0, False, None)):
        found = wish(
            scaling, Metric.CONCURRENCY, 8.0, count, history, 20.0, is_waited_for=is_waited_for, is_measured=False
        )
        assert (found and found.count) == expected


def test_servers_stay_where_they_may_not_go() -> None:
    course = Course(SCALING.model_copy(update={"scales_down": False}), count=3)
    course.go(1000, 0.1)
    assert course.count == 3


def test_a_model_that_nobody_asks_rests_and_wakes() -> None:
    course = Course(SCALING.model_copy(update={"min_count": 0, "idle_seconds": 30.0}), count=2)
    course.go(20, 1)
    assert set(course.go(28, 0)) == {2}
    assert course.go(4, 0)[-1] == 0
    assert (course.wishes[-1].reason, course.count) == ("AT_REST", 0)
    assert set(course.go(100, 0)) == {0}
    course.look(is_waited_for=True)
    assert (course.wishes[-1].reason, course.count) == ("WAKING", 1)
    assert set(course.go(28, 0)) == {1}  # its rest is not over before it has begun


@pytest.mark.parametrize(("count", "expected"), [(0, 2), (1, 2), (2, 2), (3, 3), (9, 4)])
def test_other_bounds_hold_at_once(count: int, expected: int) -> None:
    course = Course(SCALING.model_copy(update={"min_count": 2}), count=count)
    course.look()
    assert course.count == expected
