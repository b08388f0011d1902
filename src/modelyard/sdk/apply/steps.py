"""The words of a plan: what happens to each resource of a file, and why it can't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from modelyard.kit.errors import Fault
from modelyard.sdk.apply.manifest import Item
from modelyard.sdk.errors import ManifestInvalid


class Action(StrEnum):
    """What happens to a resource."""

    KEEP = "keep"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Change:
    """A field that is not what the file says. `is_fixed`: it stays as it was made."""

    field: str
    seen: Any
    wanted: Any
    is_fixed: bool


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one resource of the file."""

    item: Item
    action: Action
    changes: Sequence[Change] = ()

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.item.kind.word} '{self.item.key}'"


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps: what is made first, then what goes away, the dependents first."""

    steps: Sequence[Step]

    def of(self, *actions: Action) -> Sequence[Step]:
        """The steps that do one of these."""
        return [step for step in self.steps if step.action in actions]

    @property
    def is_done(self) -> bool:
        """Whether the platform is as the file says."""
        return all(step.action is Action.KEEP for step in self.steps)


class PlanBlocked(ManifestInvalid):
    """The file asks for changes that can't be made in place."""

    def __init__(self, steps: Sequence[Step]) -> None:
        faults = [
            Fault(
                f"{step.item.where}.{change.field}",
                f"{step.title} was made with another value, which stays; give the new one another name, "
                "or take the old one away first (absent: true)",
            )
            for step in steps
            for change in step.changes
            if change.is_fixed
        ]
        super().__init__(faults)
