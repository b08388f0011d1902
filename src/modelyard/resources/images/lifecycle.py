"""States of an image's environment."""

from __future__ import annotations

from enum import StrEnum

from modelyard.kit.lifecycle import Lifecycle


class EnvironmentState(StrEnum):
    """BUILD_FAILED can be built again; READY may find its files gone."""

    NOT_BUILT = "NOT_BUILT"
    BUILDING = "BUILDING"
    READY = "READY"
    BUILD_FAILED = "BUILD_FAILED"


_S = EnvironmentState

LIFECYCLE = Lifecycle(
    name="environment",
    initial=_S.NOT_BUILT,
    moves={
        _S.NOT_BUILT: frozenset({_S.BUILDING, _S.READY}),
        _S.BUILDING: frozenset({_S.READY, _S.BUILD_FAILED}),
        _S.READY: frozenset({_S.BUILDING}),
        _S.BUILD_FAILED: frozenset({_S.BUILDING, _S.READY}),
    },
)
