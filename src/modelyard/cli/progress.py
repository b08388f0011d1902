"""What is going on, on stderr: bars and spinners on a terminal, a line for each change elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from modelyard.sdk.transfers import Progress as Moved

R = TypeVar("R")


@contextmanager
def waiting(what: str, state: Callable[[R], str]) -> Generator[Callable[[R], None], None, None]:
    """Show the state of what is waited for; gives the callback that is told of changes."""
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        started = monotonic()

        def tell_line(resource: R) -> None:
            console.print(f"{what}: {_words(resource, state)} ({monotonic() - started:.1f} s)", soft_wrap=True)

        yield tell_line
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)

        def tell(resource: R) -> None:
            progress.update(task, description=f"{what}: {_words(resource, state)}")

        yield tell


@contextmanager
def moving(what: str) -> Generator[Callable[[Moved], None], None, None]:
    """Show a transfer; gives the callback that is told how far it is."""
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[files]}", markup=False),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None, files="")

        def tell(moved: Moved) -> None:
            files = f"{moved.done_file_count}/{moved.file_count} files"
            progress.update(task, total=moved.total_bytes, completed=moved.done_bytes, files=files)

        yield tell


def _words(resource: R, state: Callable[[R], str]) -> str:
    message = getattr(resource, "status_message", None)
    return f"{state(resource)}, {message}" if message else state(resource)
