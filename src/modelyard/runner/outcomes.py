"""How a run can end before, around or after the user's process, and the exit codes that say so.

The codes are those of BSD's sysexits(3), 64 to 78, which scripts hardly ever use themselves; an end by a signal is 128 + its number
as in a shell. What the user's script answers is passed on untouched and has no name here.
"""

from __future__ import annotations

BAD_PLAN = 64
BAD_SOURCE = 65
NO_SOURCE = 66
NO_ENTRY_POINT = 67
STORE_UNAVAILABLE = 69
INTERNAL = 70
INSTALL_FAILED = 71
NO_SPACE = 73
UPLOAD_FAILED = 74
NO_PERMISSION = 77
CANNOT_EXECUTE = 126
STOPPED = 143

BEFORE_THE_SCRIPT = (
    BAD_PLAN,
    BAD_SOURCE,
    NO_SOURCE,
    NO_ENTRY_POINT,
    INSTALL_FAILED,
    NO_SPACE,
    NO_PERMISSION,
    CANNOT_EXECUTE,
)
"""Ends that another attempt can't change: what was asked for is wrong, not the run."""


class StepFailed(Exception):
    """A step can't be done; the message is a sentence for the user, `exit_code` one of this module's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class Stopped(StepFailed):
    """The run was asked to end while the step was under way."""

    def __init__(self, message: str = "The run was stopped.") -> None:
        super().__init__(message, STOPPED)


class NotInStore(StepFailed):
    """The store has no such container or object."""

    def __init__(self, message: str) -> None:
        super().__init__(message, NO_SOURCE)


class Damaged(StepFailed):
    """Content differs from its checksum."""

    def __init__(self, message: str) -> None:
        super().__init__(message, BAD_SOURCE)
