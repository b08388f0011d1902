"""Every lifecycle of the product is a table without dead ends and without states that can't be reached."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest

from modelyard.kit.lifecycle import Lifecycle
from modelyard.resources.endpoints import lifecycle as endpoints
from modelyard.resources.endpoints import service as endpoints_service
from modelyard.resources.experiments import lifecycle as experiments
from modelyard.resources.experiments import service as experiments_service
from modelyard.resources.images import lifecycle as images
from modelyard.resources.images import service as images_service
from modelyard.resources.models import lifecycle as models
from modelyard.resources.routes import lifecycle as routes
from modelyard.resources.routes import service as routes_service
from modelyard.resources.trainings import lifecycle as trainings
from modelyard.resources.trainings import service as trainings_service
from modelyard.resources.workloads import lifecycle as workloads
from modelyard.resources.workloads import service as workloads_service

ALL: list[Lifecycle[Any]] = [
    endpoints.ENDPOINT,
    endpoints.STAGE,
    endpoints.ENDPOINT_MODEL,
    experiments.LIFECYCLE,
    images.LIFECYCLE,
    models.LIFECYCLE,
    routes.LIFECYCLE,
    trainings.LIFECYCLE,
    workloads.LIFECYCLE,
]
EVERYWHERE = pytest.mark.parametrize("lifecycle", ALL, ids=lambda lifecycle: lifecycle.name)

# What stays until somebody deletes it: for these a lasting state is as good as a final one.
LASTING = {
    "endpoint": {"ACTIVE", "CREATE_FAILED", "UPDATE_FAILED"},
    "endpoint_stage": {"ACTIVE", "CREATE_FAILED", "DEPLOY_FAILED"},
    "endpoint_model": {"ACTIVE", "CREATE_FAILED"},
    "experiment": {"ACTIVE", "FAILED_TO_CREATE_RESOURCE", "FAILED_TO_CREATE_EXPERIMENT"},
    "environment": {"READY", "BUILD_FAILED"},
    "route": {"ACTIVE", "FAILED"},
}


def reachable(moves: Mapping[StrEnum, frozenset[StrEnum]], start: StrEnum) -> set[StrEnum]:
    seen, left = {start}, [start]
    while left:
        new = moves.get(left.pop(), frozenset[StrEnum]()) - seen
        seen |= new
        left.extend(new)
    return seen


@EVERYWHERE
def test_the_table_names_every_state_and_none_else(lifecycle: Lifecycle[Any]) -> None:
    states = set(type(lifecycle.initial))
    assert set(lifecycle.moves) == states
    assert {state for after in lifecycle.moves.values() for state in after} <= states
    assert all(type(state) is type(lifecycle.initial) for state in lifecycle.moves)


@EVERYWHERE
def test_every_state_can_be_reached(lifecycle: Lifecycle[Any]) -> None:
    assert reachable(lifecycle.moves, lifecycle.initial) == set(type(lifecycle.initial))


@EVERYWHERE
def test_every_state_leads_to_an_end(lifecycle: Lifecycle[Any]) -> None:
    lasting = LASTING.get(lifecycle.name, set[str]())
    for state in lifecycle.moves:
        ends = {end for end in reachable(lifecycle.moves, state) if lifecycle.is_final(end) or end.value in lasting}
        assert ends, f"{state} leads nowhere"


def test_histories_are_kept_under_the_kind_that_they_are_asked_for() -> None:
    assert endpoints.ENDPOINT.name == endpoints_service.ENDPOINT_KIND
    assert endpoints.STAGE.name == endpoints_service.STAGE_KIND
    assert experiments.LIFECYCLE.name == experiments_service.KIND
    assert images.LIFECYCLE.name == images_service.KIND
    assert routes.LIFECYCLE.name == routes_service.KIND
    assert trainings.LIFECYCLE.name == trainings_service.KIND
    assert workloads.LIFECYCLE.name == workloads_service.KIND
