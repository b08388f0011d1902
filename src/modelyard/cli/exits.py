"""How the command ends: exit codes, and errors as lines on stderr.

The codes are part of the command's contract (docs/guides/cli.md): scripts branch on them.
"""

from __future__ import annotations

import sys
import traceback
from enum import IntEnum

import typer

from modelyard.sdk.errors import (
    ApiError,
    BadRequest,
    ConnectionFailed,
    ManifestInvalid,
    NotConfigured,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    UnknownName,
    WaitFailed,
    WaitTimedOut,
)


class Code(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    WAIT_FAILED = 4
    DENIED = 5
    UNREACHABLE = 6
    TIMED_OUT = 7
    INTERRUPTED = 130


_CODES: tuple[tuple[type[Exception], Code], ...] = (
    (WaitFailed, Code.WAIT_FAILED),
    (WaitTimedOut, Code.TIMED_OUT),
    (NotFound, Code.NOT_FOUND),
    (UnknownName, Code.NOT_FOUND),
    (Unauthenticated, Code.DENIED),
    (PermissionDenied, Code.DENIED),
    (NotConfigured, Code.UNREACHABLE),
    (ConnectionFailed, Code.UNREACHABLE),
    (BadRequest, Code.USAGE),
    (ManifestInvalid, Code.USAGE),
)
_ENDPOINT_ASKS_FOR_KEY = 401900  # the gateway's own word about a prediction, which the platform's token doesn't help
_HINTS: tuple[tuple[type[Exception], str], ...] = (
    (NotConfigured, "see `modelyard --help` for --home, --api-url, --app-key and --token"),
    (Unauthenticated, "`modelyard credentials` shows the token of the platform on this machine"),
)


def code_of(error: Exception) -> Code:
    """The exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), Code.FAILED)


def report(error: Exception, *, with_traceback: bool = False) -> Code:
    """Tell the user about an error on stderr and return the exit code. `with_traceback` is for those who look for a bug in the client."""
    if with_traceback:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, WaitFailed):
        for line in error.last_log_lines:
            _say(f"  | {line}")
    if isinstance(error, ApiError | ManifestInvalid) and error.faults:
        _say_error("the request has wrong values" if isinstance(error, ApiError) else "the file can't be applied")
        for fault in error.faults:
            _say(f"  {fault.field}: {fault.message}" if fault.field else f"  {fault.message}")
    elif type(error).__module__.startswith("modelyard."):  # our own errors are sentences
        _say_error(str(error))
    elif isinstance(error, OSError):
        _say_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    else:
        _say_error(f"unexpected {type(error).__name__}: {error} (--traceback shows where)")
    if isinstance(error, ApiError):
        for blocker in error.blockers:
            _say(f"  {blocker.kind} '{blocker.name}' ({blocker.id})")
    if isinstance(error, ApiError) and error.status >= 500 and error.request_id:
        _say(f"  request id {error.request_id}")
    for kind, hint in _HINTS:
        if isinstance(error, kind) and getattr(error, "code", None) != _ENDPOINT_ASKS_FOR_KEY:
            _say(f"  {hint}")
    return code_of(error)


def _say_error(text: str) -> None:
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    _say(text)


def _say(text: str) -> None:
    # What came from a server may hold anything; a terminal must not obey it.
    typer.echo("".join(character for character in text if character.isprintable() or character == "\t"), err=True)
