"""The families of errors.

Two kinds of reader are told apart. A *user* error carries a sentence for a person, a stable code and the HTTP status that it
maps to; it never becomes a 5xx. An *effort* error tells the control loop what to do next: try again later, or give up.
Every concrete error is a class of its own beside the thing that it speaks of; its constructor builds the sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request: the field it is in (a wire name such as `datasetList[2].dataUri`) and the sentence."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Blocker:
    """Something that stands in the way of a deletion: its kind (`training`), its id and its name."""

    kind: str
    id: str
    name: str


class UserError(Exception):
    """The request can't be done as it stands; the message says what is wrong and what to do.

    Attributes:
        code: the envelope's `resultCode`: the HTTP status times a thousand plus a number that stays the same for ever.
        status: the HTTP status, 400 to 499 (507 where the store is full).
        faults: the fields that are wrong, where the error is about fields.
        blockers: what stands in the way, where something does; at most `MAX_BLOCKERS`.
        has_more_blockers: whether there are more than those.
    """

    code: int = 400000
    status: int = 400
    blockers: Sequence[Blocker] = ()
    has_more_blockers: bool = False

    def __init__(self, message: str, *, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)


_NAMED_FAULTS = 10


class Invalid(UserError):
    """The request has wrong values. All faults are told at once, each by its field."""

    code = 400001

    def __init__(self, faults: Sequence[Fault]) -> None:
        told = [f"{fault.field}: {fault.message}" for fault in faults[:_NAMED_FAULTS]]
        if len(faults) > len(told):
            told.append(f"and {len(faults) - len(told)} more")
        super().__init__("; ".join(told), faults=faults)


class Unauthenticated(UserError):
    """No valid credential came with the request."""

    code = 401001
    status = 401


class Forbidden(UserError):
    """The caller is known but may not do this."""

    code = 403001
    status = 403


class NotFound(UserError):
    """There is no such thing, or none that the caller may see."""

    code = 404001
    status = 404

    def __init__(self, kind: str, key: str) -> None:
        super().__init__(f"{kind} '{key}' not found")
        self.kind = kind
        self.key = key


class Conflict(UserError):
    """The request contradicts the state that something is in."""

    code = 409001
    status = 409


MAX_BLOCKERS = 50
"""So many are listed; a guard asks for one more, to know whether there are more."""
_NAMED_BLOCKERS = 5


class Blocked(Conflict):
    """Others need what was to be deleted. The sentence names the first few of them, the answer lists more."""

    def __init__(self, sentence: str, blockers: Sequence[Blocker]) -> None:
        """`sentence` has `{blockers}` where their names go."""
        names = [f"'{blocker.name}'" for blocker in blockers[:_NAMED_BLOCKERS]]
        more = len(blockers) - len(names)
        if more:
            names.append("more")
        listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
        super().__init__(sentence.replace("{blockers}", listed))
        self.blockers = tuple(blockers[:MAX_BLOCKERS])
        self.has_more_blockers = len(blockers) > MAX_BLOCKERS


class Unavailable(UserError):
    """This version can't do that."""

    code = 400002


class EffortError(Exception):
    """Raised by work on the outside world; says what the control loop does next."""


class RetryLater(EffortError):
    """It did not work now and may later. `delay_seconds` overrides the back-off."""

    def __init__(self, message: str, *, delay_seconds: float | None = None) -> None:
        super().__init__(message)
        self.delay_seconds = delay_seconds


class GiveUp(EffortError):
    """It can't work, however often it is tried; the message goes to the user."""
