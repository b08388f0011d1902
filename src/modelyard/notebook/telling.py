"""What a notebook says of itself: lines in its log, and the report that the platform reads.

The report is one JSON object that is replaced atomically. The platform looks at it often and writes down what has changed, so figures
that always change are rounded here, and told at intervals.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Generator
from typing import Any

PREFIX = "[modelyard] "


class Telling:
    """The log and the report. `facts` are further fields of the report."""

    def __init__(self, report_path: str) -> None:
        self._path = report_path
        self._step = "starting"
        self._message = ""
        self._steps: list[dict[str, Any]] = []
        self._facts: dict[str, Any] = {}
        self._written = ""

    def say(self, text: str) -> None:
        """Print one line. A closed pipe or a full disk is nobody's mistake."""
        with contextlib.suppress(OSError):
            os.write(1, f"{PREFIX}{' '.join(text.splitlines())}\n".encode(errors="backslashreplace"))

    @contextlib.contextmanager
    def step(self, name: str, message: str) -> Generator[dict[str, Any]]:
        """A step on the way to a usable notebook; what is put under `detail` of the record is told with it."""
        record: dict[str, Any] = {"step": name, "seconds": None, "detail": ""}
        self._steps.append(record)
        self.tell(name, message)
        begun = time.monotonic()
        try:
            yield record
        finally:
            record["seconds"] = round(time.monotonic() - begun, 3)

    def tell(self, step: str, message: str = "", **facts: Any) -> None:
        """Where the notebook is now; facts stay until they are told anew."""
        self._step, self._message = step, message
        self._facts |= facts
        report = {"step": self._step, "message": self._message, "steps": self._steps, **self._facts}
        text = json.dumps(report, ensure_ascii=False)
        if text == self._written:
            return
        with contextlib.suppress(OSError):
            write_whole(self._path, text)
            self._written = text

    def add(self, **facts: Any) -> None:
        """More facts; the step stays."""
        self.tell(self._step, self._message, **facts)

    @property
    def current(self) -> str:
        """The step that was told last."""
        return self._step


def write_whole(path: str, text: str, mode: int = 0o644) -> None:
    """Write a file so that every reader sees all of it or none. Raises OSError."""
    draft = f"{path}.{os.getpid()}.new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    os.replace(draft, path)
