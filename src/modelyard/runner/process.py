"""The user's process: how it is started, told to end, and waited for.

It gets a process group of its own, so that one signal reaches all that it starts, and the runner's own output, so that lines arrive
without a detour. When it has ended, so does all that came from it, also what has left its group and its session (`descendants`).
`subprocess` is not used: its import alone takes as long as everything done here.
"""

from __future__ import annotations

import os
import sys
import time

from modelyard.runner.descendants import adopt_orphans, end_all
from modelyard.runner.light import suppress
from modelyard.runner.outcomes import CANNOT_EXECUTE, StepFailed
from modelyard.runner.plan import PYTHON, Main
from modelyard.runner.stop import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn
else:
    import _signal as signal  # the module `signal` makes enums of its constants

_INHERITED = ("HOME", "PATH", "LANG", "TMPDIR")
_REMAINDER_SECONDS = 5.0


def main_argv(main: Main, python: str) -> list[str]:
    """The arguments, with the interpreter in its place."""
    return [python if main.argv[0] == PYTHON else main.argv[0], *main.argv[1:]]


def main_env(main: Main, python: str) -> dict[str, str]:
    """The whole environment of the user's process. Programs of the layer and of the image come first on its PATH."""
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    inherited = (env.get("PATH") or os.defpath).split(":")
    directories = [os.path.dirname(python), os.path.dirname(sys.executable), *inherited]
    env["PATH"] = ":".join(dict.fromkeys(directories))
    env["PYTHONUNBUFFERED"] = "1"
    env.update(main.env)
    return env


def run_main(
    main: Main, python: str, stop: Stop, grace_seconds: float, on_start: Callable[[], None] | None = None
) -> int:
    """Run the user's process to its end; its exit code, or minus the number of the signal that ended it.

    `on_start` is called once it runs. On a stop its group gets SIGTERM and, after the grace or a second request, SIGKILL.
    Raises `StepFailed` when it can't be started.
    """
    stop.check()
    adopt_orphans()
    pid = start(main_argv(main, python), main_env(main, python), main.cwd)
    if on_start is not None:
        on_start()
    return wait(pid, stop, grace_seconds)


def become(main: Main, python: str) -> NoReturn:
    """Replace the runner by the process. Raises `StepFailed` when that can't be."""
    argv, env = main_argv(main, python), main_env(main, python)
    try:
        _enter(argv, env, main.cwd)
    except OSError as error:
        raise _not_started(argv, error.strerror or str(error)) from error


def start(argv: Sequence[str], env: Mapping[str, str], cwd: str, output: int = 1) -> int:
    """Start a process as the leader of a new group, with nothing to read; its pid. It has the runner's outputs, or `output` as both."""
    reader, writer = os.pipe()  # closes by itself when the program is executed
    pid = os.fork()
    if pid == 0:
        _child(argv, env, cwd, output, writer)
    os.close(writer)
    with suppress(OSError):
        os.setpgid(pid, pid)  # the child does it too: whoever comes first
    reason = b""
    while piece := os.read(reader, 4096):
        reason += piece
    os.close(reader)
    if reason:
        os.waitpid(pid, 0)
        raise _not_started(argv, reason.decode(errors="replace"))
    return pid


def wait(pid: int, stop: Stop, grace_seconds: float) -> int:
    """Wait for the leader of a group, passing a stop on to it; exit code, or minus a signal's number. What it leaves behind is ended."""

    deadline: float | None = None

    def on_alarm(_number: int, _frame: object) -> None:
        _signal_group(pid, signal.SIGKILL)

    def on_stop(count: int) -> None:
        nonlocal deadline
        deadline = time.monotonic() + (grace_seconds if count == 1 else 0.0)
        if count > 1 or grace_seconds <= 0:
            _signal_group(pid, signal.SIGKILL)
            return
        _signal_group(pid, signal.SIGTERM)
        signal.setitimer(signal.ITIMER_REAL, grace_seconds)

    previous = signal.signal(signal.SIGALRM, on_alarm)
    stop.hook = on_stop
    try:
        if stop.is_requested:  # it came between the check and the hook
            on_stop(1)
        # Not reaped yet: its number stays the group's while the group is signalled.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    finally:
        stop.hook = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    _signal_group(pid, signal.SIGTERM)
    _pid, status = os.waitpid(pid, 0)
    left_seconds = _REMAINDER_SECONDS if deadline is None else deadline - time.monotonic()
    end_all(min(left_seconds, _REMAINDER_SECONDS))
    return os.waitstatus_to_exitcode(status)


def run_quietly(argv: Sequence[str], stop: Stop) -> int:
    """Run a helper of the runner to its end, its output thrown away; its exit code."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        pid = start(argv, env, "/", nowhere)
    finally:
        os.close(nowhere)
    return wait(pid, stop, 0.0)


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    try:
        import signal as names  # noqa: PLC0415 - for an end that is told, not for each start

        return names.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _child(argv: Sequence[str], env: Mapping[str, str], cwd: str, output: int, writer: int) -> NoReturn:
    try:
        os.setpgid(0, 0)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        if output != 1:
            os.dup2(output, 1)
            os.dup2(output, 2)
        _enter(argv, env, cwd)
    except OSError as error:
        os.write(writer, (error.strerror or str(error)).encode())
    except BaseException as error:
        os.write(writer, repr(error).encode())
    os._exit(CANNOT_EXECUTE)


def _enter(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> NoReturn:
    os.chdir(cwd)
    # Python ignores these; a program expects them as they are by default.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execvpe(argv[0], list(argv), dict(env))  # noqa: S606 - without a shell is what is wanted


def _not_started(argv: Sequence[str], reason: str) -> StepFailed:
    return StepFailed(f"'{argv[0]}' can't be started: {reason}.", CANNOT_EXECUTE)


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
