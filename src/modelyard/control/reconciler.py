"""The contract of a reconciler.

A reconciler is given a key and makes the world match what the resource asks for, one step at a time. It is level-based: it
looks at what is, never at what event woke it. It works in three breaths: *load* in a short session; *decide* in a pure
function; *apply*: outside work first, in no session, idempotent and named by deterministic ids, then one transaction that
begins with `lease.guard`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from modelyard.control.work import Lease


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing to do until somebody asks again."""


@dataclass(frozen=True, slots=True)
class Again:
    """Look again after so many seconds, even if nobody asks."""

    after_seconds: float


Outcome = Done | Again


class Reconciler(Protocol):
    """Reconciles the resources of one kind."""

    @property
    def kind(self) -> str:
        """The kind of its work items."""
        ...

    async def reconcile(self, key: str, lease: Lease) -> Outcome:
        """Bring one resource a step further. Raise `RetryLater` when the outside world is not ready; any other error is retried too.

        `GiveUp` is for the reconciler's own use: by the time it returns it must have put the reason into the resource's state.
        """
        ...
