"""Keeping a directory in step with its destination while the user's process writes to it.

A file is taken only when it is at rest: it looks the same as at the look before, and no process has it open for writing. So a
checkpoint never arrives half-written, without any help from the script. Files go up in the order in which they were written, the newest
alone at the end, because frameworks write the file that points at a checkpoint after the checkpoint. What disappears here stays there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from modelyard.runner.crew import work_through
from modelyard.runner.figures import format_bytes, format_count
from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import Damaged, StepFailed, Stopped
from modelyard.runner.outputs import store_file
from modelyard.runner.stop import Stop
from modelyard.runner.tally import Tally
from modelyard.runner.tree import LocalFile, look, scan
from modelyard.runner.upload import Destination

_PARTING_SECONDS = 5.0

Mark = tuple[int, int, int, int]


class CheckpointSync:
    """Keeps one upload in step: `start` with the user's process, `finish` after it."""

    def __init__(self, destination: Destination, interval_seconds: float, journal: Journal) -> None:
        self._destination = destination
        self._interval_seconds = interval_seconds
        self._journal = journal
        self._stop = Stop()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._last_look: dict[str, Mark] = {}
        self._kept: dict[str, Mark] = {}
        self._there: dict[str, str] | None = None
        self._told: set[str] = set()

    def start(self) -> None:
        """Begin to look every interval."""
        self._thread.start()

    def finish(self, stop: Stop) -> str:
        """End the looking and keep everything that is there now; a line of figures. Raises `StepFailed`."""
        self._stop.request()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_PARTING_SECONDS)
        found = scan(self._destination.upload.source)
        self._tell(found.skipped + found.unstorable)
        due = [file for file in found.files if self._kept.get(file.name) != file.mark]
        count, size = self._keep(due, stop)
        work_through(found.empty_directories, self._destination.mark_directory, stop)
        if not found.files:
            return "no checkpoints"
        figures = f"{format_count(count, 'file')}, {format_bytes(size)}"
        if count:
            self._journal.say(f"checkpoints kept at the end in {self._destination.upload.label}: {figures}")
        return figures

    def _run(self) -> None:
        while not self._ended.wait(self._interval_seconds):
            try:
                self._pass()
            except Stopped:
                return
            except StepFailed as failure:
                self._journal.complain(
                    "checkpoints", f"Checkpoints are not in step: {failure.message} It is tried again at the next look."
                )
            except Exception as failure:  # the training must not suffer from its copies
                self._journal.complain("checkpoints", f"Checkpoints are not in step: {failure!r}")

    def _pass(self) -> None:
        begun = time.monotonic()
        found = scan(self._destination.upload.source)
        self._tell(found.skipped + found.unstorable)
        resting = [
            file
            for file in found.files
            if self._last_look.get(file.name) == file.mark and self._kept.get(file.name) != file.mark
        ]
        self._last_look = {file.name: file.mark for file in found.files}
        if resting:
            busy = files_open_for_writing()
            resting = [file for file in resting if (file.mark[3], file.mark[2]) not in busy]
        count, size = self._keep(resting, self._stop)
        if count:
            self._journal.say(
                f"checkpoints kept in {self._destination.upload.label}: {format_count(count, 'file')}, {format_bytes(size)} "
                f"in {time.monotonic() - begun:.1f} s"
            )

    def _keep(self, files: Sequence[LocalFile], stop: Stop) -> tuple[int, int]:
        """Send the files; how many and how many bytes."""
        if not files:
            return 0, 0
        if self._there is None:
            self._there = self._destination.known_checksums(stop)
        there = self._there
        ordered = sorted(files, key=lambda file: (file.modified_at_ns, file.name))
        tally = Tally(len(ordered), sum(file.size for file in ordered))

        def send(file: LocalFile, cancel: Stop) -> None:
            now = look(file.name, file.path)
            if now is None or (now.mark != file.mark and not self._ended.is_set()):
                return
            try:
                kept, checksum = self._send(now, cancel, tally)
            except Damaged:
                if self._ended.is_set():
                    raise
                return  # somebody has begun to write it again: the next look takes it
            there[file.name] = checksum
            self._kept[file.name] = kept.mark
            tally.add_file()

        work_through(ordered[:-1], send, stop)
        work_through(ordered[-1:], send, stop)
        return tally.files_count, tally.bytes_count

    def _send(self, file: LocalFile, stop: Stop, tally: Tally) -> tuple[LocalFile, str]:
        known = (self._there or {}).get(file.name, "")
        if self._ended.is_set():
            return store_file(self._destination, file, stop, tally, known)
        return file, self._destination.store(file, stop, tally.add_bytes, known)

    def _tell(self, reasons: Sequence[str]) -> None:
        for reason in reasons:
            if reason not in self._told:
                self._told.add(reason)
                self._journal.warn(f"{self._destination.upload.source}: {reason}; it is not kept")


def files_open_for_writing() -> set[tuple[int, int]]:
    """(device, inode) of every file that some process visible here has open for writing."""
    found: set[tuple[int, int]] = set()
    for process in os.listdir("/proc"):
        if not process.isdigit():
            continue
        try:
            descriptors = os.listdir(f"/proc/{process}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                # The link's own mode tells how the file was opened: writable for its owner means open for writing.
                if os.lstat(f"/proc/{process}/fd/{descriptor}").st_mode & 0o200:
                    seen = os.stat(f"/proc/{process}/fd/{descriptor}")
                    found.add((seen.st_dev, seen.st_ino))
            except OSError:
                continue
    return found
