"""An endpoint's state follows from those of its stages."""

from __future__ import annotations

import itertools

import pytest

from modelyard.resources.endpoints.endpoint_reconciler import endpoint_state
from modelyard.resources.endpoints.lifecycle import ENDPOINT, EndpointState, StageState
from modelyard.resources.endpoints.table import StageRow

E, S = EndpointState, StageState
OLD = [state for state in EndpointState if state is not E.DELETE_IN_PROGRESS]  # then it is not asked any more


def stage(state: StageState, *, is_default: bool = True, name: str = "default") -> StageRow:
    return StageRow(name=name, state=state.value, is_default=is_default, reason=f"R_{name}", message=f"M {name}")


@pytest.mark.parametrize(
    ("old", "states", "expected", "message"),
    [
        (E.CREATE_REQUESTED, [S.CREATE_REQUESTED], E.CREATE_IN_PROGRESS, "M default"),
        (E.CREATE_IN_PROGRESS, [S.DEPLOY_IN_PROGRESS], E.CREATE_IN_PROGRESS, "M default"),
        (E.CREATE_IN_PROGRESS, [S.ACTIVE], E.ACTIVE, None),
        (E.CREATE_IN_PROGRESS, [S.CREATE_FAILED], E.CREATE_FAILED, "M default"),
        (E.CREATE_IN_PROGRESS, [S.DEPLOY_FAILED], E.CREATE_FAILED, "M default"),
        (E.CREATE_FAILED, [S.ACTIVE], E.ACTIVE, None),
        (E.CREATE_FAILED, [S.CREATE_FAILED], E.CREATE_FAILED, "M default"),
        (E.CREATE_IN_PROGRESS, [S.ACTIVE, S.CREATE_FAILED], E.UPDATE_FAILED, "Stage 'blue': M blue"),
        (E.ACTIVE, [S.ACTIVE, S.CREATE_IN_PROGRESS], E.UPDATE_IN_PROGRESS, "Stage 'blue': M blue"),
        (E.ACTIVE, [S.ACTIVE, S.CREATE_FAILED], E.UPDATE_FAILED, "Stage 'blue': M blue"),
        (E.ACTIVE, [S.DEPLOY_FAILED], E.UPDATE_FAILED, "Stage 'default': M default"),
        (E.UPDATE_FAILED, [S.ACTIVE, S.ACTIVE], E.ACTIVE, None),
        (E.UPDATE_IN_PROGRESS, [S.ACTIVE, S.DELETE_IN_PROGRESS], E.UPDATE_IN_PROGRESS, "Stage 'blue': M blue"),
        (E.UPDATE_IN_PROGRESS, [S.ACTIVE], E.ACTIVE, None),
    ],
)
def test_the_word_on_the_screen(
    old: EndpointState, states: list[StageState], expected: EndpointState, message: str | None
) -> None:
    stages = [stage(states[0]), *(stage(state, is_default=False, name="blue") for state in states[1:])]
    state, _, sentence = endpoint_state(old, stages)
    assert (state, sentence) == (expected, message)


@pytest.mark.parametrize("old", OLD)
def test_whatever_its_stages_do_it_has_a_move_for_it(old: EndpointState) -> None:
    """Otherwise its reconciler would fail again and again, and the endpoint would stand still for ever."""
    missing: set[str] = set()
    for default, other in itertools.product(StageState, [None, *StageState]):
        stages = [stage(default)] + ([] if other is None else [stage(other, is_default=False, name="blue")])
        new, _, _ = endpoint_state(old, stages)
        if new is not old and new not in ENDPOINT.moves[old]:
            missing.add(f"{old} → {new} with {default}, {other}")
    assert missing == set()


def test_without_stages_nothing_is_wrong() -> None:
    assert endpoint_state(E.ACTIVE, []) == (E.ACTIVE, None, None)
