"""Says how an instance ended, from what its supervisor saw: the cause, the code or signal, and one sentence for a person.

Standard library only, light parts only: the supervisor imports this.
"""

from __future__ import annotations

import os

_SIGNAL_NAMES = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    10: "SIGUSR1",
    11: "SIGSEGV",
    12: "SIGUSR2",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
}
_REASON_CAUSES = {"STORAGE": "OUT_OF_STORAGE"}
_LAST_SIGNAL = 64


class Ending:
    """The end of an instance as it comes about. `begin` when the supervisor decides to end it, `conclude` when it has ended."""

    def __init__(self) -> None:
        self.failure = ""
        self.out_of_memory_count = 0
        self.is_killed = False
        self.asked_grace_seconds = 0.0
        self.cause = "LOST"
        self.message = ""
        self.code: int | None = None
        self.signal: int | None = None
        self._reason = ""
        self._limit = ""

    @property
    def is_begun(self) -> bool:
        """Whether the supervisor has decided to end it."""
        return bool(self._reason)

    def begin(self, reason: str, limit: str, grace_seconds: float) -> None:
        """Note why: `STOPPED`, `TIME_LIMIT`, `OUT_OF_MEMORY` or `STORAGE`, with the limit in words."""
        self._reason, self._limit, self.asked_grace_seconds = reason, limit, grace_seconds

    def conclude(self, wait_status: int | None, status_text: str, is_sandboxed: bool, memory_bytes: int) -> None:
        """Set cause, code, signal and message.

        Args:
            wait_status: of the child (bubblewrap or the guardian) in `waitpid`'s form.
            status_text: what the child wrote to its status pipe.
        """
        if is_sandboxed:
            self._read_sandbox(wait_status, status_text)
        else:
            self._read_guardian(wait_status, status_text)
        if self._reason:
            self.cause = _REASON_CAUSES.get(self._reason, self._reason)
            self.message = self._reason_message()
        elif self.cause == "LAUNCH_FAILED":
            self.message = f"It could not be started: {self.failure}" if self.failure else "It could not be started."
        elif self.out_of_memory_count and (self.signal is not None or self.code):
            self.cause = "OUT_OF_MEMORY"
            self.message = f"Killed for memory: it needed more than its limit of {size(memory_bytes)}."
        else:
            self.message = self._plain_message()

    def _read_sandbox(self, wait_status: int | None, status_text: str) -> None:
        # Bubblewrap writes the exit code only when it came as far as executing the program.
        _, found, tail = status_text.partition('"exit-code":')
        if found:
            self._set_code(int(tail.split("}")[0]))
        elif wait_status is not None and os.WIFSIGNALED(wait_status) and not self.failure:
            self.cause, self.signal = "SIGNAL", os.WTERMSIG(wait_status)
        else:
            self.cause = "LAUNCH_FAILED"

    def _read_guardian(self, wait_status: int | None, status_text: str) -> None:
        _, found, tail = status_text.partition("exit ")
        if self.failure:
            self.cause = "LAUNCH_FAILED"
        elif found:
            self._set_status(int(tail.split("\n")[0]))
        elif wait_status is not None and os.WIFSIGNALED(wait_status):
            self.cause, self.signal = "SIGNAL", os.WTERMSIG(wait_status)
        else:
            self.cause, self.signal = "SIGNAL", 9  # the guardian was told to end, and killed all

    def _set_status(self, status: int) -> None:
        if os.WIFSIGNALED(status):
            self.cause, self.signal = "SIGNAL", os.WTERMSIG(status)
        else:
            self.cause, self.code = "EXITED", os.WEXITSTATUS(status)

    def _set_code(self, code: int) -> None:
        # As a shell does, bubblewrap tells death by signal n as 128 + n. A program that exits with such a code is taken for killed.
        if code - 128 in range(1, _LAST_SIGNAL + 1):
            self.cause, self.signal = "SIGNAL", code - 128
        else:
            self.cause, self.code = "EXITED", code

    def _reason_message(self) -> str:
        killed = (
            f" It did not end within {duration(self.asked_grace_seconds)} and was killed." if self.is_killed else ""
        )
        if self._reason == "TIME_LIMIT":
            return f"Stopped at its time limit of {self._limit}.{killed}"
        if self._reason == "OUT_OF_MEMORY":
            return f"Killed for memory: it needed more than its limit of {self._limit}."
        if self._reason == "STORAGE":
            return (
                f"Out of space: its files took more than its data storage of {self._limit}. Ask for a larger data storage, or write "
                f"less.{killed}"
            )
        return f"Stopped on request.{killed}"

    def _plain_message(self) -> str:
        if self.signal is not None:
            name = _SIGNAL_NAMES.get(self.signal)
            return f"Killed by signal {self.signal} ({name})." if name else f"Killed by signal {self.signal}."
        return "Ended normally." if self.code == 0 else f"Ended with exit code {self.code}."


def first_pid(status_text: str) -> int | None:
    """The pid that bubblewrap (`"child-pid": 7`) or the guardian (`pid 7`) tells first, once that line is whole."""
    for prefix, end in (('"child-pid": ', ","), ("pid ", "\n")):
        _, found, tail = status_text.partition(prefix)
        digits, is_whole, _ = tail.partition(end)
        if found and is_whole and digits.strip().isdigit():
            return int(digits)
    return None


def size(count: float) -> str:
    """Bytes in words, e.g. `1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def duration(seconds: float) -> str:
    """Seconds in words, e.g. `90 s`."""
    return f"{seconds:g} s"
