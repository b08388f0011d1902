"""States of an experiment."""

from __future__ import annotations

from enum import StrEnum

from modelyard.kit.lifecycle import Lifecycle


class ExperimentState(StrEnum):
    """The guide's states. Those with RESOURCE belong to what an experiment stands on, those with EXPERIMENT to itself."""

    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    CREATE_RESOURCE_IN_PROGRESS = "CREATE_RESOURCE_IN_PROGRESS"
    CREATE_EXPERIMENT_IN_PROGRESS = "CREATE_EXPERIMENT_IN_PROGRESS"
    ACTIVE = "ACTIVE"
    FAILED_TO_CREATE_RESOURCE = "FAILED_TO_CREATE_RESOURCE"
    FAILED_TO_CREATE_EXPERIMENT = "FAILED_TO_CREATE_EXPERIMENT"


_S = ExperimentState

LIFECYCLE = Lifecycle(
    name="experiment",
    initial=_S.CREATE_IN_PROGRESS,
    moves={
        _S.CREATE_IN_PROGRESS: frozenset({_S.CREATE_RESOURCE_IN_PROGRESS, _S.ACTIVE, _S.FAILED_TO_CREATE_RESOURCE}),
        _S.CREATE_RESOURCE_IN_PROGRESS: frozenset(
            {_S.CREATE_EXPERIMENT_IN_PROGRESS, _S.ACTIVE, _S.FAILED_TO_CREATE_RESOURCE}
        ),
        _S.CREATE_EXPERIMENT_IN_PROGRESS: frozenset({_S.ACTIVE, _S.FAILED_TO_CREATE_EXPERIMENT}),
        _S.ACTIVE: frozenset(),
        _S.FAILED_TO_CREATE_RESOURCE: frozenset({_S.CREATE_IN_PROGRESS}),
        _S.FAILED_TO_CREATE_EXPERIMENT: frozenset({_S.CREATE_IN_PROGRESS}),
    },
)

FAILED = frozenset({_S.FAILED_TO_CREATE_RESOURCE, _S.FAILED_TO_CREATE_EXPERIMENT})
