"""Ends all that came from the user's process, wherever it hides: other groups, other sessions, parents that have gone.

The runner becomes the one to whom orphans come (`prctl(2)`, PR_SET_CHILD_SUBREAPER), so whatever the script has started, however often it
forked, is a descendant of the runner, and nothing else is. That holds in a sandbox as in a plain process.
"""

from __future__ import annotations

import os
import time

from modelyard.runner.light import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # the module `signal` makes enums of its constants

_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.02
_END_SECONDS = 20.0


def adopt_orphans() -> None:
    """From here on, orphans among the descendants are children of this process."""
    with suppress(ImportError, OSError, AttributeError):  # without it, what leaves its group ends with the instance
        import _ctypes  # noqa: PLC0415 - a third of the package `ctypes`, which nothing else here needs

        prctl = _ctypes.dlsym(_ctypes.dlopen("", 0), "prctl")
        _ctypes.call_function(prctl, (_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def end_all(patience_seconds: float) -> None:
    """Ask all descendants to end, wait so long, and end by force what is left."""
    deadline = time.monotonic() + patience_seconds
    asked: set[int] = set()
    while not _are_gone():
        if time.monotonic() >= deadline:
            _end_by_force()
            return
        for pid in set(_descendants()) - asked:
            asked.add(pid)
            _signal(pid, signal.SIGTERM)
            _signal(pid, signal.SIGCONT)
        time.sleep(_POLL_SECONDS)


def _end_by_force() -> None:
    deadline = time.monotonic() + _END_SECONDS
    while not _are_gone() and time.monotonic() < deadline:
        # All are stopped before any is killed: something that forks without end would fill each place that becomes free.
        stopped: set[int] = set()
        while fresh := set(_descendants()) - stopped:
            for pid in fresh:
                _signal(pid, signal.SIGSTOP)
            stopped |= fresh
            if time.monotonic() > deadline:
                break
        for pid in stopped:
            _signal(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _are_gone() -> bool:
    """Whether no descendant is left. As orphans come here, each of them hangs on a child."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _descendants() -> list[int]:
    """Living ones, by their parents in `/proc`."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):
            continue  # it has ended meanwhile
        if state != b"Z":
            children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    pending = [os.getpid()]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def _signal(pid: int, number: int) -> None:
    with suppress(OSError):
        os.kill(pid, number)
