"""What the run tells the world: lines in its log and a small report file.

Lines go to standard output, prefixed so that a reader tells them from the script's own. The report is one JSON object that is replaced
atomically: `{"step", "message", "progress", "exit_code"?, "ended_at"?, "steps": [{"step", "started_at", "seconds", "detail"}], "inputs"?}`.
Exit code and end are those of the user's process, and there as soon as it has ended. Telling never fails a run: a full disk or a closed
pipe is not the user's mistake.
"""

from __future__ import annotations

import _thread
import os
import time

from modelyard.runner import jsons
from modelyard.runner.light import suppress

PREFIX = "[modelyard] "
_LINE_INTERVAL_SECONDS = 1.0
_REPORT_INTERVAL_SECONDS = 0.5
_COMPLAINT_INTERVAL_SECONDS = 15.0


class Journal:
    """The log and the report of one run. Safe to use from several threads.

    Args:
        report_path: where the report goes; empty for none.
        output: the file descriptor that lines are written to.
    """

    def __init__(self, report_path: str = "", output: int = 1) -> None:
        self._report_path = report_path
        self._output = output
        self._lock = _thread.allocate_lock()
        self._step = "starting"
        self._message = ""
        self._progress = 0.0
        self._steps: list[dict[str, object]] = []
        self._inputs: dict[str, dict[str, object]] = {}
        self._line_at = 0.0
        self._report_at = 0.0
        self._complaint_at: dict[str, float] = {}
        self._exit_code: int | None = None
        self._ended_at = ""

    def say(self, text: str) -> None:
        """Print one line. Line breaks in the text (of a file name, say) don't make a second one."""
        line = (PREFIX + " ".join(text.splitlines())).encode(errors="backslashreplace") + b"\n"
        with self._lock, suppress(OSError):
            while line:
                line = line[os.write(self._output, line) :]

    def warn(self, text: str) -> None:
        """Print one line that is meant to be noticed."""
        self.say("warning: " + text)

    def complain(self, topic: str, text: str) -> None:
        """A warning that may come from many threads and again and again: told every 15 seconds per topic at most."""
        now = time.monotonic()
        with self._lock:
            if now - self._complaint_at.get(topic, -1e9) < _COMPLAINT_INTERVAL_SECONDS:
                return
            self._complaint_at[topic] = now
        self.warn(text)

    def step(self, name: str, message: str) -> Step:
        """A step of the run, for a `with`: entered in the report when it begins, its seconds and detail when it ends, also by an exception."""
        record: dict[str, object] = {"step": name, "started_at": _timestamp(), "seconds": None, "detail": ""}
        self._steps.append(record)
        self._line_at = time.monotonic()
        step = Step(record)
        self._replace(name, message, 0.0)
        return step

    def record(self, key: str, facts: dict[str, object]) -> None:
        """Note what an input looks like; it goes into the report as `inputs` with the next step."""
        self._inputs[key] = facts

    def advance(self, message: str, progress: float) -> None:
        """How far the step is, 0 to 1: a line once a second at most, the report twice a second at most."""
        now = time.monotonic()
        if now - self._report_at >= _REPORT_INTERVAL_SECONDS:
            self._replace(self._step, message, progress)
        if now - self._line_at >= _LINE_INTERVAL_SECONDS:
            self._line_at = now
            self.say(message)

    def note_end(self, exit_code: int) -> None:
        """The user's process has ended; every report from here on says so."""
        self._exit_code, self._ended_at = exit_code, _timestamp()
        if exit_code:  # others may wait for this process: they must hear of it before anything is uploaded
            self._replace(self._step, self._message, self._progress)

    def close(self, step: str, message: str, exit_code: int) -> None:
        """The last word: `done` or `failed`, one sentence, and the exit code."""
        self._exit_code = exit_code
        self._replace(step, message, 1.0 if step == "done" else self._progress)

    def _replace(self, step: str, message: str, progress: float) -> None:
        self._step, self._message, self._progress = step, message, progress
        self._report_at = time.monotonic()
        if not self._report_path:
            return
        report: dict[str, object] = {"step": step, "message": message, "progress": round(progress, 4)}
        if self._exit_code is not None:
            report["exit_code"] = self._exit_code
        if self._ended_at:
            report["ended_at"] = self._ended_at
        report["steps"] = self._steps
        if self._inputs:
            report["inputs"] = self._inputs
        temporary = f"{self._report_path}.{os.getpid()}.new"
        try:
            # O_EXCL is left out on purpose: a run that was killed half-way may have left the file.
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(jsons.dumps(report))
            os.replace(temporary, self._report_path)
        except OSError as error:
            self.complain("report", f"The report can't be written: {error.strerror}.")


class Step:
    """What a step leaves to remember in its record: its seconds, and one line of figures."""

    def __init__(self, record: dict[str, object]) -> None:
        self._record = record
        self._begun = time.monotonic()
        self.detail = ""

    def __enter__(self) -> Step:
        return self

    def __exit__(self, _kind: object, _error: object, _trace: object) -> None:
        self._record["seconds"] = round(time.monotonic() - self._begun, 3)
        self._record["detail"] = self.detail


def _timestamp() -> str:
    """Now, UTC, RFC 3339 with milliseconds (datetime is not worth its import here)."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
