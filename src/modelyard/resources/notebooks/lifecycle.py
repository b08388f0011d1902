"""States of a notebook."""

from __future__ import annotations

from enum import StrEnum

from modelyard.kit.lifecycle import Lifecycle


class NotebookState(StrEnum):
    """The guide's states. Healthy or not follows from a live probe of the Jupyter server."""

    CREATE_REQUESTED = "CREATE_REQUESTED"
    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    ACTIVE_HEALTHY = "ACTIVE_HEALTHY"
    ACTIVE_UNHEALTHY = "ACTIVE_UNHEALTHY"
    STOP_IN_PROGRESS = "STOP_IN_PROGRESS"
    STOPPED = "STOPPED"
    START_IN_PROGRESS = "START_IN_PROGRESS"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"
    CREATE_FAILED = "CREATE_FAILED"
    STOP_FAILED = "STOP_FAILED"
    START_FAILED = "START_FAILED"
    DELETE_FAILED = "DELETE_FAILED"


_S = NotebookState
_ACTIVE = frozenset({_S.ACTIVE_HEALTHY, _S.ACTIVE_UNHEALTHY})
# Deleting wins over everything, and a stop may be asked for at any moment at which something runs or is about to.
_LEAVING = frozenset({_S.STOP_IN_PROGRESS, _S.STOPPED, _S.DELETE_IN_PROGRESS})

LIFECYCLE = Lifecycle(
    name="notebook",
    initial=_S.CREATE_REQUESTED,
    moves={
        _S.CREATE_REQUESTED: frozenset({_S.CREATE_IN_PROGRESS, _S.CREATE_FAILED}) | _ACTIVE | _LEAVING,
        _S.CREATE_IN_PROGRESS: frozenset({_S.CREATE_FAILED}) | _ACTIVE | _LEAVING,
        # To START_FAILED goes what ran once and can't be started again: its image is no longer in the catalogue, say.
        _S.ACTIVE_HEALTHY: frozenset({_S.ACTIVE_UNHEALTHY, _S.START_FAILED}) | _LEAVING,
        _S.ACTIVE_UNHEALTHY: frozenset({_S.ACTIVE_HEALTHY, _S.START_FAILED}) | _LEAVING,
        _S.STOP_IN_PROGRESS: frozenset({_S.STOPPED, _S.STOP_FAILED, _S.DELETE_IN_PROGRESS}),
        _S.STOPPED: frozenset({_S.START_IN_PROGRESS, _S.DELETE_IN_PROGRESS}),
        _S.START_IN_PROGRESS: frozenset({_S.START_FAILED}) | _ACTIVE | _LEAVING,
        _S.START_FAILED: frozenset({_S.START_IN_PROGRESS}) | _LEAVING,
        # What took too long may end well after all.
        _S.STOP_FAILED: _LEAVING,
        _S.CREATE_FAILED: frozenset({_S.DELETE_IN_PROGRESS}),
        _S.DELETE_IN_PROGRESS: frozenset({_S.DELETE_FAILED}),
        _S.DELETE_FAILED: frozenset({_S.DELETE_IN_PROGRESS}),
    },
)

ACTIVE = _ACTIVE
STARTING = frozenset({_S.CREATE_REQUESTED, _S.CREATE_IN_PROGRESS, _S.START_IN_PROGRESS})
CREATING = frozenset({_S.CREATE_REQUESTED, _S.CREATE_IN_PROGRESS})
