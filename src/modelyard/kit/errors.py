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


class UserError(Exception):
    """The request can't be done as it stands; the message says what is wrong and what to do.

    Attributes:
        code: the envelope's `resultCode`: the HTTP status times a thousand plus a number that stays the same for ever.
        status: the HTTP status, 400 to 499 (507 where the store is full).
        faults: the fields that are wrong, where the error is about fields.
    """

    code: int = 400000
    status: int = 400

    def __init__(self, message: str, *, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.faults = tuple(faults)


class Invalid(UserError):
    """The request has wrong values. All faults are told at once, each by its field."""

    code = 400001

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults), faults=faults)


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
