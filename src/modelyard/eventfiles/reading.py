"""Reads what is new in a directory of event files, in bounded pieces.

The files were written by users' programs, which may go on writing, rotate, delete and replace them, and may leave there whatever they like:
links are not followed, what is no plain file is not opened, and numbers, depths and sizes are capped. Nothing is remembered between two
calls: whoever asks says how far it has come with each file.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from modelyard.eventfiles import records
from modelyard.eventfiles.scalars import Event, NotAnEvent, read_event

MAX_FILES = 1000
MAX_ENTRIES = 20_000
MAX_DEPTH = 8
MAX_PATH_BYTES = 400
MAX_NAME_CHARACTERS = 255
_MARK = "tfevents"  # TensorBoard's own rule for what is an event file
_READ_BYTES = 1 << 18
_LONGEST = records.HEADER_BYTES + records.MAX_RECORD_BYTES + records.FOOTER_BYTES
_MAX_TIME_SECONDS = 1e10  # the year 2286
_STEP_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Place:
    """How far a file was read: its inode, and the offset at which the next record begins."""

    inode: int
    offset: int


@dataclass(slots=True)
class Points:
    """Points of several series in columns: the n-th has the name `names[series[n]]`, times are microseconds since 1970."""

    names: list[str] = field(default_factory=list[str])
    series: array[int] = field(default_factory=lambda: array("i"))
    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(slots=True)
class Piece:
    """What was read of one file.

    Attributes:
        path: below the directory.
        begin: where the reading began, `end` where the next one begins.
        size: of the file now; what lies between `end` and it is not whole yet.
        restart_step: all points of the file's directory from this step on are void; those of the piece come after.
        corrupt_bytes, bad_events, long_names: what was stepped over.
    """

    path: str
    inode: int
    begin: int
    end: int
    size: int
    restart_step: int | None = None
    corrupt_bytes: int = 0
    bad_events: int = 0
    long_names: int = 0
    points: Points = field(default_factory=Points)


@dataclass(slots=True)
class Found:
    """What a call has read. `has_more`: the budget was used up, ask again. `notes`: what is not read at all, for people."""

    pieces: list[Piece] = field(default_factory=list[Piece])
    has_more: bool = False
    notes: list[str] = field(default_factory=list[str])


def read_new(directory: str, places: Mapping[str, Place], max_bytes: int, max_points: int) -> Found:
    """What is new in the event files below `directory`, about `max_bytes` and `max_points` of it. A missing directory has nothing."""
    found = Found()
    # The least first: a file with much in store must not keep the others waiting.
    files = sorted(_event_files(directory, found.notes), key=lambda each: each.size - _known(places, each))
    points_left, bytes_left = max_points, max_bytes
    for file in files:
        begin = _known(places, file)
        if begin == file.size:
            continue
        if points_left <= 0 or bytes_left <= 0:
            found.has_more = True
            break
        for piece in _pieces(directory, file, begin, bytes_left, points_left):
            points_left -= len(piece.points)
            bytes_left -= min(piece.end, piece.size) - piece.begin
            found.pieces.append(piece)
            found.has_more |= piece.end < piece.size and (points_left <= 0 or bytes_left <= 0)
    return found


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    inode: int
    size: int


def _known(places: Mapping[str, Place], file: _File) -> int:
    """How far a file was read; a file that was replaced or cut is a new one."""
    place = places.get(file.path)
    return place.offset if place is not None and place.inode == file.inode and place.offset <= file.size else 0


def _event_files(directory: str, notes: list[str]) -> list[_File]:
    """The event files below a directory, at most `MAX_FILES`."""
    files: list[_File] = []
    entry_count = 0
    for path, entry in _entries(directory, notes):
        entry_count += 1
        if entry_count > MAX_ENTRIES or len(files) >= MAX_FILES:
            notes.append(f"Only {len(files)} event files are read: there are too many files below the log directory.")
            break
        if _MARK not in entry.name:
            continue
        if not _is_plain(path):
            notes.append("An event file whose path is too long or is no UTF-8 text is not read.")
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            files.append(_File(path, status.st_ino, status.st_size))
        elif stat.S_ISLNK(status.st_mode):
            notes.append(f"'{path}' is not read: links are not followed.")
    return files


def _entries(directory: str, notes: list[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All files below a directory with their paths, from descriptor to descriptor."""
    pending = [("", 0)]
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    while pending:
        parent, depth = pending.pop()
        try:
            descriptor = _open_below(directory, parent, flags)
        except OSError:
            continue
        below: list[str] = []
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    path = f"{parent}/{entry.name}" if parent else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        below.append(path)
                    else:
                        yield path, entry
        except OSError:
            pass  # it was deleted meanwhile
        finally:
            os.close(descriptor)
        if below and depth >= MAX_DEPTH:
            notes.append(f"Event files more than {MAX_DEPTH} directories deep are not read.")
            continue
        pending += [(path, depth + 1) for path in sorted(below, reverse=True)]


def _open_below(directory: str, path: str, flags: int) -> int:
    """Open a path below a directory without following a link on the way."""
    parts = [part for part in path.split("/") if part]
    last_flags = flags if not parts else os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(directory, last_flags)
    for index, part in enumerate(parts):
        parent = descriptor
        try:
            descriptor = os.open(part, flags if index == len(parts) - 1 else last_flags, dir_fd=parent)
        finally:
            os.close(parent)
    return descriptor


def _is_plain(path: str) -> bool:
    try:
        return len(path.encode()) <= MAX_PATH_BYTES and path.isprintable()
    except UnicodeEncodeError:
        return False


def _pieces(directory: str, file: _File, begin: int, max_bytes: int, max_points: int) -> Iterator[Piece]:
    """New pieces of a file. Where a program restarted its log, one piece ends and the next one begins."""
    try:
        descriptor = _open_below(
            directory, file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        )
    except OSError:
        return
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_ino != file.inode:
            return
        reader = _Reader(file, status, begin)
        limit = begin + max_bytes
        while reader.piece.end < min(status.st_size, limit) and reader.point_count < max_points:
            if not reader.take(_read(descriptor, reader.piece.end, reader.wanted_bytes)):
                break
        yield from reader.pieces
    except OSError:
        return  # a disk that can't be read now; the next call tries again
    finally:
        os.close(descriptor)


def _read(descriptor: int, offset: int, wanted_bytes: int) -> bytes:
    return os.pread(descriptor, max(_READ_BYTES, wanted_bytes), offset)


class _Reader:
    """Collects the points of one file."""

    def __init__(self, file: _File, status: os.stat_result, begin: int) -> None:
        directory = file.path.rpartition("/")[0]
        self._prefix = f"{directory}/" if directory else ""
        self._fallback_time = status.st_mtime_ns // 1000
        self._size = status.st_size
        self._file = file
        self._names: dict[str, int | None] = {}
        self.pieces = [self._new_piece(begin)]
        self.point_count = 0
        self.wanted_bytes = 0

    @property
    def piece(self) -> Piece:
        """The one that is being filled."""
        return self.pieces[-1]

    def take(self, chunk: bytes) -> bool:
        """Take the records of a chunk that begins at the piece's end. False when nothing can be taken until more is written."""
        begin = self.piece.end
        split = records.split(chunk)
        for content, end in split.contents:
            try:
                event = read_event(content)
            except NotAnEvent:
                self.piece.bad_events += 1
            else:
                self._add(event)
            self.piece.end = begin + end
        self.piece.corrupt_bytes += split.corrupt_bytes
        self.piece.end = begin + split.next_offset
        left = self._size - self.piece.end
        self.wanted_bytes = split.wanted_bytes
        if split.wanted_bytes > left:
            return False
        if split.wanted_bytes > _LONGEST:
            self.piece.end += split.wanted_bytes
            self.wanted_bytes = 0
            return True
        return split.next_offset > 0 or split.wanted_bytes > len(chunk)

    def _new_piece(self, begin: int) -> Piece:
        return Piece(self._file.path, self._file.inode, begin, begin, self._size)

    def _add(self, event: Event) -> None:
        if event.is_restart:
            if len(self.piece.points) or self.piece.restart_step is not None:
                self.pieces.append(self._new_piece(self.piece.end))
                self._names = {}
            self.piece.restart_step = event.step
        if not event.scalars or not -_STEP_LIMIT < event.step < _STEP_LIMIT:
            return
        time = self._time(event.wall_time)
        points = self.piece.points
        for tag, value in event.scalars:
            index = self._index(tag)
            if index is None:
                self.piece.long_names += 1
                continue
            points.series.append(index)
            points.steps.append(event.step)
            points.times.append(time)
            points.values.append(value)
            self.point_count += 1

    def _time(self, seconds: float) -> int:
        return int(seconds * 1e6) if 0 < seconds < _MAX_TIME_SECONDS else self._fallback_time

    def _index(self, tag: str) -> int | None:
        """The number of a series among the piece's names; None for a name that is too long."""
        known = self._names.get(tag, -1)
        if known != -1:
            return known
        name = f"{self._prefix}{tag}"
        if not name.isprintable():
            name = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in name)
        index = None
        if len(name) <= MAX_NAME_CHARACTERS:
            index = len(self.piece.points.names)
            self.piece.points.names.append(name)
        self._names[tag] = index
        return index
