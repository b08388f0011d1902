"""States of endpoints, stages and the models on them."""

from __future__ import annotations

from enum import StrEnum

from modelyard.kit.lifecycle import Lifecycle


class EndpointState(StrEnum):
    """The guide's states; they follow from those of the stages."""

    CREATE_REQUESTED = "CREATE_REQUESTED"
    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    UPDATE_IN_PROGRESS = "UPDATE_IN_PROGRESS"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"
    ACTIVE = "ACTIVE"
    CREATE_FAILED = "CREATE_FAILED"
    UPDATE_FAILED = "UPDATE_FAILED"


class StageState(StrEnum):
    """The guide's states. CREATE is about the model servers, DEPLOY about the gateway."""

    CREATE_REQUESTED = "CREATE_REQUESTED"
    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    DEPLOY_IN_PROGRESS = "DEPLOY_IN_PROGRESS"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"
    ACTIVE = "ACTIVE"
    CREATE_FAILED = "CREATE_FAILED"
    DEPLOY_FAILED = "DEPLOY_FAILED"


class EndpointModelState(StrEnum):
    """States of a model on a stage."""

    CREATE_REQUESTED = "CREATE_REQUESTED"
    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"
    ACTIVE = "ACTIVE"
    CREATE_FAILED = "CREATE_FAILED"


class GatewayState(StrEnum):
    """What is seen of a stage at the gateway."""

    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    STAGE_DEPLOYING = "STAGE_DEPLOYING"
    ACTIVE = "ACTIVE"
    NOT_FOUND_STAGE = "NOT_FOUND_STAGE"
    NOT_FOUND_STAGE_DEPLOY_RESULT = "NOT_FOUND_STAGE_DEPLOY_RESULT"
    STAGE_DEPLOY_FAIL = "STAGE_DEPLOY_FAIL"


_E = EndpointState
_ENDPOINT_AFTER_CREATION = frozenset({_E.ACTIVE, _E.UPDATE_IN_PROGRESS, _E.UPDATE_FAILED, _E.DELETE_IN_PROGRESS})

ENDPOINT = Lifecycle(
    name="endpoint",
    initial=_E.CREATE_REQUESTED,
    moves={
        # To UPDATE_… at once: the default stage is up, and another that was added meanwhile is not.
        _E.CREATE_REQUESTED: _ENDPOINT_AFTER_CREATION | {_E.CREATE_IN_PROGRESS, _E.CREATE_FAILED},
        _E.CREATE_IN_PROGRESS: _ENDPOINT_AFTER_CREATION | {_E.CREATE_FAILED},
        _E.ACTIVE: _ENDPOINT_AFTER_CREATION,
        _E.UPDATE_IN_PROGRESS: _ENDPOINT_AFTER_CREATION,
        _E.UPDATE_FAILED: _ENDPOINT_AFTER_CREATION,
        # What the gateway refused it may take later.
        _E.CREATE_FAILED: _ENDPOINT_AFTER_CREATION | {_E.CREATE_IN_PROGRESS},
        _E.DELETE_IN_PROGRESS: frozenset(),
    },
)

_S = StageState

STAGE = Lifecycle(
    name="endpoint_stage",
    initial=_S.CREATE_REQUESTED,
    moves={
        _S.CREATE_REQUESTED: frozenset({_S.CREATE_IN_PROGRESS, _S.CREATE_FAILED, _S.DELETE_IN_PROGRESS}),
        _S.CREATE_IN_PROGRESS: frozenset({_S.DEPLOY_IN_PROGRESS, _S.ACTIVE, _S.CREATE_FAILED, _S.DELETE_IN_PROGRESS}),
        _S.DEPLOY_IN_PROGRESS: frozenset({_S.ACTIVE, _S.DEPLOY_FAILED, _S.DELETE_IN_PROGRESS}),
        _S.ACTIVE: frozenset({_S.DEPLOY_IN_PROGRESS, _S.DEPLOY_FAILED, _S.DELETE_IN_PROGRESS}),
        _S.CREATE_FAILED: frozenset({_S.DELETE_IN_PROGRESS}),
        _S.DEPLOY_FAILED: frozenset({_S.DEPLOY_IN_PROGRESS, _S.ACTIVE, _S.DELETE_IN_PROGRESS}),
        _S.DELETE_IN_PROGRESS: frozenset(),
    },
)

_M = EndpointModelState

ENDPOINT_MODEL = Lifecycle(
    name="endpoint_model",
    initial=_M.CREATE_REQUESTED,
    moves={
        _M.CREATE_REQUESTED: frozenset({_M.CREATE_IN_PROGRESS, _M.CREATE_FAILED, _M.DELETE_IN_PROGRESS}),
        _M.CREATE_IN_PROGRESS: frozenset({_M.ACTIVE, _M.CREATE_FAILED, _M.DELETE_IN_PROGRESS}),
        _M.ACTIVE: frozenset({_M.CREATE_FAILED, _M.DELETE_IN_PROGRESS}),
        _M.CREATE_FAILED: frozenset({_M.DELETE_IN_PROGRESS}),
        _M.DELETE_IN_PROGRESS: frozenset(),
    },
)
