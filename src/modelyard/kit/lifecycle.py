"""Lifecycles as tables.

A lifecycle lists its states, which of them are final, and the moves that are allowed. The one function that changes a
state (`modelyard.control.transitions`) refuses a move that is not in the table. The state diagrams in docs are drawn from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

S = TypeVar("S", bound=StrEnum)


class MoveNotAllowed(Exception):
    """A programming error: code asked for a move that the lifecycle does not have."""

    def __init__(self, lifecycle: str, old: str, new: str) -> None:
        super().__init__(f"{lifecycle}: {old} → {new} is not a move of this lifecycle")


@dataclass(frozen=True, slots=True)
class Lifecycle(Generic[S]):
    """States and the moves between them.

    Attributes:
        name: the resource's name, for messages and diagrams.
        initial: the state of a new resource.
        moves: for each state, the states that may follow. A state without followers is final.
    """

    name: str
    initial: S
    moves: Mapping[S, frozenset[S]]

    def check(self, old: S, new: S) -> None:
        """Raise `MoveNotAllowed` unless `new` may follow `old` (staying where one is is always allowed)."""
        if old != new and new not in self.moves.get(old, frozenset()):
            raise MoveNotAllowed(self.name, old, new)

    def is_final(self, state: S) -> bool:
        """Whether nothing follows this state."""
        return not self.moves.get(state)
