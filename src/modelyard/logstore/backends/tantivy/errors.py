"""What can go wrong with the store itself. What is wrong with a query is the port's `BadQuery`."""

from __future__ import annotations

from pathlib import Path

from modelyard.kit.errors import RetryLater


class LogStoreInUse(Exception):
    """Another process writes to this store; only one may."""

    def __init__(self, root: Path, holder: str) -> None:
        who = f" (process {holder})" if holder else ""
        super().__init__(
            f"The log store at {root} is already being written by another server{who}. "
            "Stop that server, or give this one a home of its own."
        )


class LogStoreTooNew(Exception):
    """The files were written by a version with another layout."""

    def __init__(self, root: Path, found: str, known: str) -> None:
        super().__init__(f"The log store at {root} has layout {found!r}; this version reads layout {known!r}.")


class LogStoreClosed(Exception):
    """The store was not opened, was closed already, or was opened for reading only."""


class LineNotValid(ValueError):
    """A line that can't be kept, because its identity or its time makes no sense."""


class LogsNotKept(RetryLater):
    """The lines could not be written; none of this call counts as kept. Sending the same lines again is safe."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The log store can't write at the moment: {reason}")
