"""Keeping a directory of checkpoints in step with its destination while the user's process writes to it.

A *unit* is what is written together: all files at the top, or all below one directory at the top. It is taken only when it is at rest: all of
it looks the same as at the look before, and no process has any of it open for writing. What is taken goes up file by file, each whole or
not at all, and a manifest after it (see `manifest`): whoever resumes finds the newest checkpoint that was complete, however a run has
ended. A unit that is in motion stays, at the destination, what it was.

When the process has ended by itself, all that it left is taken. When it was killed, only what was at rest a moment before: what was being
written then is half of something.
"""

from __future__ import annotations

import os
import threading
import time

from modelyard.runner.crew import work_through
from modelyard.runner.figures import format_bytes, format_count
from modelyard.runner.journal import Journal
from modelyard.runner.manifest import MANIFEST, STAGED, Member, from_text, is_own, staged_name, to_text
from modelyard.runner.outcomes import Damaged, StepFailed, Stopped
from modelyard.runner.outputs import store_file
from modelyard.runner.stop import Stop
from modelyard.runner.tally import Tally
from modelyard.runner.tree import Found, LocalFile, look, scan
from modelyard.runner.upload import Destination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PARTING_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_REST_FACTOR = 20.0
_PATIENCE_SECONDS = 120.0

Mark = tuple[int, int, int, int]
Unit = dict[str, LocalFile]


class CheckpointSync:
    """Keeps one upload in step: made before the user's process starts, since what is there then is whole; `start` with it, `finish` after it."""

    def __init__(self, destination: Destination, interval_seconds: float, journal: Journal) -> None:
        self._destination = destination
        self._interval_seconds = interval_seconds
        self._journal = journal
        self._stop = Stop()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
        self._seen = {name: _marks(unit) for name, unit in _units(scan(destination.upload.source)).items()}
        self._resting = self._seen
        self._moving_since: dict[str, float] = {}
        self._kept: dict[str, Mark] = {}
        self._members: dict[str, Member] = {}
        self._there: dict[str, str] | None = None
        self._told: set[str] = set()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def finish(self, stop: Stop, *, was_killed: bool = False) -> str:
        """End the looking and keep everything that is there now, or, of a process that was killed, everything that was at rest; a line of
        figures. Raises `StepFailed`."""
        self._stop.request()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_PARTING_SECONDS)
        found = scan(self._destination.upload.source)
        self._tell(found.skipped + found.unstorable)
        units = _units(found)
        if was_killed:
            self._leave_out(units)
        count, size = self._keep(units, found, stop)
        work_through(found.empty_directories, self._destination.mark_directory, stop)
        if not found.files:
            return "no checkpoints"
        figures = f"{format_count(count, 'file')}, {format_bytes(size)}"
        if count:
            self._journal.say(f"checkpoints kept at the end in {self._destination.upload.label}: {figures}")
        return figures

    def _leave_out(self, units: dict[str, Unit]) -> None:
        for name, unit in list(units.items()):
            is_kept = all(self._kept.get(file.name) == file.mark for file in unit.values())
            if is_kept or self._resting.get(name) == _marks(unit):
                continue
            newest = max(unit.values(), key=lambda file: file.modified_at_ns)
            self._journal.warn(
                f"'{newest.name}' was being written when the process was killed: it is not kept, and what was kept before it stays "
                f"in {self._destination.upload.label}"
            )
            del units[name]

    def _run(self) -> None:
        due_at = time.monotonic() + self._interval_seconds
        pause = min(_LOOK_SECONDS, self._interval_seconds)
        while not self._ended.wait(pause):
            begun = time.monotonic()
            try:
                found = scan(self._destination.upload.source)
                units = self._look(found, begun)
                pause = max(pause, (time.monotonic() - begun) * _REST_FACTOR)
                if begun >= due_at:
                    due_at = begun + self._interval_seconds
                    self._pass(units, found)
            except Stopped:
                return
            except StepFailed as failure:
                self._journal.complain(
                    "checkpoints", f"Checkpoints are not in step: {failure.message} It is tried again at the next look."
                )
            except Exception as failure:  # the training must not suffer from its copies
                self._journal.complain("checkpoints", f"Checkpoints are not in step: {failure!r}")

    def _look(self, found: Found, now: float) -> dict[str, Unit]:
        """The units that are at rest."""
        self._tell(found.skipped + found.unstorable)
        units = _units(found)
        still = {name: unit for name, unit in units.items() if self._seen.get(name) == _marks(unit)}
        self._seen = {name: _marks(unit) for name, unit in units.items()}
        if any(self._is_due(unit) for unit in still.values()):
            busy = files_open_for_writing()
            still = {name: rest for name, unit in still.items() if (rest := self._without_busy(unit, busy, now))}
        self._resting = {name: _marks(unit) for name, unit in still.items()}
        return still

    def _is_due(self, unit: Unit) -> bool:
        return any(self._kept.get(file.name) != file.mark for file in unit.values())

    def _without_busy(self, unit: Unit, busy: set[tuple[int, int]], now: float) -> Unit:
        """The unit, or nothing while a file of it is open for writing. One that is open all the time (a log) does not hold up the others."""
        rest: Unit = {}
        is_at_rest = True
        for name, file in unit.items():
            if (file.mark[3], file.mark[2]) not in busy:
                self._moving_since.pop(name, None)
                rest[name] = file
            elif now - self._moving_since.setdefault(name, now) < _PATIENCE_SECONDS:
                is_at_rest = False
        return rest if is_at_rest else {}

    def _pass(self, units: Mapping[str, Unit], found: Found) -> None:
        begun = time.monotonic()
        if not any(self._is_due(unit) for unit in units.values()):
            return
        count, size = self._keep(units, found, self._stop)
        if count:
            self._journal.say(
                f"checkpoints kept in {self._destination.upload.label}: {format_count(count, 'file')}, {format_bytes(size)} "
                f"in {time.monotonic() - begun:.1f} s"
            )

    def _keep(self, units: Mapping[str, Unit], found: Found, stop: Stop) -> tuple[int, int]:
        """Take these units: their files, then the manifest, then what had to wait for it; how many files and bytes were new."""
        due = [file for unit in units.values() for file in unit.values() if self._member_of(file) is None]
        if not due:
            return 0, 0
        there = self._known(stop)
        ordered = sorted(due, key=lambda file: (file.modified_at_ns, file.name))
        tally = Tally(len(ordered), sum(file.size for file in ordered))
        taken: dict[str, tuple[LocalFile, Member]] = {}

        def send(batch: Sequence[LocalFile], cancel: Stop) -> None:
            together = self._destination.store_together(batch, there, cancel, waits_below=STAGED)
            for file in batch:
                token = together.get(file.name)
                if token is not None:
                    tally.add_bytes(file.size)
                    kept = file, Member(file.size, token, is_large=False)
                else:
                    kept = self._send(file, there, cancel, tally)
                if kept is not None:
                    taken[file.name] = kept
                    tally.add_file()

        # The newest alone at the end: frameworks write the file that points at a checkpoint after the checkpoint.
        work_through(self._destination.batches(ordered[:-1]), send, stop)
        work_through(self._destination.batches(ordered[-1:]), send, stop)
        self._settle(units, taken, found, stop)
        return tally.files_count, tally.bytes_count

    def _member_of(self, file: LocalFile) -> Member | None:
        """The file's entry in the manifest, or None when it has to be sent first."""
        return self._members.get(file.name) if self._kept.get(file.name) == file.mark else None

    def _send(
        self, file: LocalFile, there: Mapping[str, str], stop: Stop, tally: Tally
    ) -> tuple[LocalFile, Member] | None:
        """Bring one file there, under its own name or, where another content has that, to wait for the manifest. None: it is in motion."""
        is_last = self._ended.is_set()
        now = look(file.name, file.path)
        if now is None or (now.mark != file.mark and not is_last):
            return None
        try:
            kept, token = store_file(
                self._destination,
                now,
                stop,
                tally,
                there.get(file.name, ""),
                waits_below=STAGED if file.name in there else "",
                may_follow=is_last,
            )
        except Damaged:
            if is_last:
                raise
            return None  # somebody has begun to write it again: a later look takes it
        return kept, Member(kept.size, token, self._destination.is_large(kept))

    def _settle(
        self, units: Mapping[str, Unit], taken: Mapping[str, tuple[LocalFile, Member]], found: Found, stop: Stop
    ) -> None:
        there = self._known(stop)
        whole: dict[str, Member] = {}
        names = set(_units(found))
        for name, unit in units.items():
            # What was due and is not taken is in motion: its member of before belongs to another checkpoint than the rest of the unit.
            members = {
                file.name: taken[file.name][1] if file.name in taken else self._member_of(file)
                for file in unit.values()
            }
            if None not in members.values():
                whole.update({file: member for file, member in members.items() if member is not None})
                names.discard(name)
        # Units in motion stay what they were; units that are gone, and files that left a unit, are gone.
        before = {file: member for file, member in self._members.items() if _unit_name(file) in names}
        self._members = {**before, **whole}
        written_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._destination.write(MANIFEST, to_text(self._members, written_at).encode(), stop)
        self._publish([kept for name, kept in taken.items() if name in whole], there, stop)
        # What waits for a unit that did not become whole waits in vain.
        in_vain = [(name, member) for name, (_, member) in taken.items() if name not in whole and name in there]
        there.update({staged_name(name, member): member.token for name, member in in_vain if not member.is_large})
        needed = {
            staged_name(name, member) for name, member in self._members.items() if there.get(name) != member.token
        }
        left = [name for name in there if name.startswith(STAGED) and name not in needed]
        work_through(left, self._destination.remove, stop)
        for name in left:
            del there[name]

    def _publish(self, taken: Sequence[tuple[LocalFile, Member]], there: dict[str, str], stop: Stop) -> None:
        """Let files that the manifest speaks of take their names: small ones by what they still are, else by what waits in the store."""
        waiting = {
            file.name: (file, member)
            for file, member in taken
            if file.name in there and there[file.name] != member.token and not member.is_large
        }

        def settled(file: LocalFile, member: Member) -> None:
            there[file.name] = member.token
            self._kept[file.name] = file.mark

        def publish(batch: Sequence[LocalFile], cancel: Stop) -> None:
            together = self._destination.store_together(batch, {}, cancel)
            for file in batch:
                _, member = waiting[file.name]
                if file.name not in together:
                    self._destination.publish(staged_name(file.name, member), file.name, file, cancel)
                there[staged_name(file.name, member)] = member.token
                settled(file, member)

        for file, member in taken:
            if file.name not in waiting:
                settled(file, member)
        work_through(self._destination.batches(file for file, _ in waiting.values()), publish, stop)

    def _known(self, stop: Stop) -> dict[str, str]:
        """What lies at the destination, by name, from the first time that it is needed; with it the checkpoint before this run's."""
        if self._there is None:
            self._there = self._destination.known_checksums(stop)
            if MANIFEST in self._there:
                self._members = from_text(self._destination.read(MANIFEST, stop)) or {}
        return self._there

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


def _units(found: Found) -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for file in found.files:
        if not is_own(file.name):
            units.setdefault(_unit_name(file.name), {})[file.name] = file
    return units


def _unit_name(name: str) -> str:
    return name.partition("/")[0] if "/" in name else ""


def _marks(unit: Unit) -> dict[str, Mark]:
    return {name: file.mark for name, file in unit.items()}
