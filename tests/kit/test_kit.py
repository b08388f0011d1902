"""The domain-free nouns."""

from __future__ import annotations

import time
from enum import StrEnum

import pytest

from modelyard.kit.backoff import Backoff
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import Fault, Invalid, NotFound, RetryLater, UserError
from modelyard.kit.ids import is_id, new_id
from modelyard.kit.lifecycle import Lifecycle, MoveNotAllowed
from modelyard.kit.names import environment_suffix, name_fault
from modelyard.kit.paging import PageRequest
from modelyard.testing.clock import ShiftedClock


def test_back_off_doubles_up_to_its_limit() -> None:
    backoff = Backoff(base_seconds=0.2, limit_seconds=5.0)
    assert [backoff.delay_seconds(attempts) for attempts in (-1, 0, 1, 2, 3, 5, 6, 10**9)] == [
        0.0,
        0.0,
        0.2,
        0.4,
        0.8,
        3.2,
        5.0,
        5.0,
    ]


def test_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    first = new_id()
    time.sleep(0.002)
    second = new_id()
    assert first < second
    assert is_id(first)
    assert len(first) == 36
    assert (first[14], first[19] in "89ab") == ("7", True)
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_ids_made_within_a_moment_sort_as_they_were_made() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert all(is_id(each) and each[14] == "7" and each[19] in "89ab" for each in made)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0197a5d2-0000-7000-8000-000000000000", True),
        ("0197A5D2-0000-7000-8000-000000000000", False),
        ("{0197a5d2-0000-7000-8000-000000000000}", False),
        ("0197a5d2000070008000000000000000", False),
        ("platform", False),
        ("", False),
    ],
)
def test_what_is_an_id(text: str, expected: bool) -> None:
    assert is_id(text) is expected


@pytest.mark.parametrize("name", ["a", "iris", "붓꽃 분류", "a b", "é" * 50, "a.b-c_d/e"])
def test_good_names(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "must not be empty"),
        ("  ", "must not be empty"),
        ("a" * 51, "must have at most 50 characters (it has 51)"),
        (" a", "must not begin or end with white space"),
        ("a\x00b", "must not contain control characters"),
        ("a\nb", "must not contain control characters"),
        ("a\ud800b", "must not contain control characters"),
    ],
)
def test_bad_names(name: str, fault: str) -> None:
    assert name_fault(name) == fault


def test_names_as_tails_of_variables() -> None:
    assert environment_suffix("train data-1") == "TRAIN_DATA_1"
    assert environment_suffix("데이터") == "데이터"
    assert environment_suffix("a.b+c") == "A_B_C"


class Light(StrEnum):
    RED = "RED"
    GREEN = "GREEN"
    BROKEN = "BROKEN"


def test_a_lifecycle_is_its_table() -> None:
    lifecycle = Lifecycle(
        "light", Light.RED, {Light.RED: frozenset({Light.GREEN}), Light.GREEN: frozenset({Light.RED, Light.BROKEN})}
    )
    lifecycle.check(Light.RED, Light.GREEN)
    lifecycle.check(Light.BROKEN, Light.BROKEN)
    with pytest.raises(MoveNotAllowed):
        lifecycle.check(Light.RED, Light.BROKEN)
    with pytest.raises(MoveNotAllowed):
        lifecycle.check(Light.BROKEN, Light.RED)
    assert [lifecycle.is_final(state) for state in Light] == [False, False, True]


def test_errors_carry_what_the_envelope_needs() -> None:
    invalid = Invalid([Fault("name", "must not be empty"), Fault("tagList[0].key", "is too long")])
    assert str(invalid) == "name: must not be empty; tagList[0].key: is too long"
    assert (invalid.status, len(invalid.faults)) == (400, 2)
    assert str(NotFound("training", "x")) == "training 'x' not found"
    assert RetryLater("no", delay_seconds=3).delay_seconds == 3


def test_codes_of_user_errors_begin_with_their_status_and_are_their_own() -> None:
    import modelyard.server.app  # noqa: F401  # knows every error of the product

    def below(family: type[UserError]) -> set[type[UserError]]:
        return {family, *(deeper for each in family.__subclasses__() for deeper in below(each))}

    families = [each for each in below(UserError) if each.__module__.startswith("modelyard.")]
    assert len(families) > 10
    wrong = [
        f"{each.__name__}: {each.code} for status {each.status}"
        for each in families
        if each.code // 1000 != each.status
    ]
    assert wrong == []


def test_pages() -> None:
    assert [PageRequest(page, limit).offset for page, limit in ((1, None), (5, None), (1, 10), (3, 10))] == [
        0,
        0,
        0,
        20,
    ]


def test_clocks() -> None:
    clock = ShiftedClock()
    assert utc_now().tzinfo is not None
    before = clock()
    clock.advance(3600)
    assert (clock() - before).total_seconds() >= 3600
