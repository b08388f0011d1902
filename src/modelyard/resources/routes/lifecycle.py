"""States of a route."""

from __future__ import annotations

from enum import StrEnum

from modelyard.kit.lifecycle import Lifecycle


class RouteState(StrEnum):
    """NOT_FOUND: it was deployed, and the gateway no longer has it."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    NOT_FOUND = "NOT_FOUND"
    FAILED = "FAILED"


_S = RouteState

LIFECYCLE = Lifecycle(
    name="route",
    initial=_S.PENDING,
    moves={
        _S.PENDING: frozenset({_S.ACTIVE, _S.FAILED}),
        _S.ACTIVE: frozenset({_S.PENDING, _S.NOT_FOUND, _S.FAILED}),
        _S.NOT_FOUND: frozenset({_S.PENDING, _S.ACTIVE, _S.FAILED}),
        _S.FAILED: frozenset({_S.PENDING, _S.ACTIVE}),
    },
)
