"""An instance's output on disk: files of limited size whose names are the offset of their first byte.

The supervisor moves bytes from the instance's pipe into the newest file, in the kernel where it can (`splice(2)`), so that printing
is not slowed and neither a line of 100 MB nor binary output is special. Old files go when there are too many; offsets count from the
first byte ever printed and stay valid. The server reads the same files at any time, without a lock. Splitting output into lines is
the reader's business. Standard library only, light parts only.
"""

# Plain `os` calls on purpose: pathlib costs a third of the supervisor's whole start.
# ruff: noqa: PTH108, PTH116, PTH208
from __future__ import annotations

import errno
import fcntl
import os

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
_NAME_DIGITS = 20
_TURN_BYTES = 32 << 20


def open_pipe() -> tuple[int, int]:
    """A pipe (read end, write end), roomy where the system allows, whose read end never blocks."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:  # noqa: SIM105 - contextlib is too slow to load here
        fcntl.fcntl(write_end, _F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass  # An unprivileged user's share of pipe memory is used up: the usual 64 KiB works as well.
    os.set_blocking(read_end, False)
    return read_end, write_end


class Recorder:
    """Writes output to `directory`, `segment_bytes` a file and at most `segment_count` files (2 or more)."""

    def __init__(self, directory: str, segment_bytes: int, segment_count: int) -> None:
        self._directory = directory
        self._segment_bytes = max(segment_bytes, 1)
        self._segment_count = max(segment_count, 2)
        self._starts: list[int] = []
        self._file = -1
        self.end = 0
        self.lost_bytes = 0
        self._can_splice = True
        self._open_segment()

    def take(self, pipe: int) -> bool:
        """Move what the pipe holds now into the files. Returns False once every writer has closed the pipe and nothing is left in it.

        Comes back after 32 MiB even when there is more: the caller has other things to look after.
        """
        turn_end = self.end + self.lost_bytes + _TURN_BYTES
        while self.end + self.lost_bytes < turn_end:
            room = self._starts[-1] + self._segment_bytes - self.end
            if room <= 0:
                self._open_segment()
                continue
            try:
                moved = self._move(pipe, room)
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}:
                    raise
                moved = self._discard(pipe)
                if moved is None:
                    return True
                if moved:
                    continue
            if moved is None:
                continue  # All of it was lost; there may be more.
            if moved == 0:
                return False
            self.end += moved
        return True

    def write(self, text: str) -> None:
        """Add a line of the supervisor's own, e.g. why the instance could not be started."""
        try:
            self.end += os.write(self._file, text.encode(errors="replace"))
        except OSError:
            self.lost_bytes += len(text)

    def give_way(self) -> None:
        """Drop all but the newest file: the disk is full, and how the instance ended matters more than what it printed long ago."""
        while len(self._starts) > 1:
            self._drop_oldest()

    def close(self) -> None:
        """Make what was written durable."""
        if self._file == -1:
            return
        try:  # noqa: SIM105 - as above
            os.fdatasync(self._file)
        except OSError:
            pass  # A full disk: what could be kept is kept.
        os.close(self._file)
        self._file = -1

    def _move(self, pipe: int, room: int) -> int | None:
        if self._can_splice:
            try:
                return os.splice(pipe, self._file, room)
            except OSError as error:
                if error.errno not in {errno.EINVAL, errno.ENOSYS}:
                    raise
                self._can_splice = False  # Some network and overlay file systems have no splice.
        content = os.read(pipe, min(room, _PIPE_BYTES))
        kept = 0
        try:
            while kept < len(content):
                kept += os.write(self._file, content[kept:])
        except OSError:
            self.lost_bytes += len(content) - kept
            return kept or None
        return kept

    def _discard(self, pipe: int) -> int | None:
        # The disk is full: the instance goes on, and its output from here on is lost rather than blocking it.
        try:
            lost = len(os.read(pipe, 1 << 16))
        except BlockingIOError:
            return None
        self.lost_bytes += lost
        return lost

    def _open_segment(self) -> None:
        if self._file != -1:
            os.close(self._file)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            self._file = os.open(_path(self._directory, self.end), flags, 0o640)
        except OSError:  # No room for even a name: this much output is lost, the instance goes on.
            self._file = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self._starts.append(self.end)
        while len(self._starts) > self._segment_count:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            os.unlink(_path(self._directory, self._starts.pop(0)))
        except OSError:
            return


def read_output(directory: str, offset: int, limit_bytes: int) -> tuple[int, bytes]:
    """At most `limit_bytes` from `offset` on, and the offset of the first of them (later than asked where the beginning was dropped).

    No bytes: nothing was printed from there on so far.
    """
    parts: list[bytes] = []
    first = position = max(offset, 0)
    while limit_bytes > 0:
        starts = segment_starts(directory)
        if not starts or position >= _end(directory, starts):
            break
        if position < starts[0]:
            if parts:
                break  # Rotation dropped what follows; the next call starts after the gap.
            first = position = starts[0]
        start = max(candidate for candidate in starts if candidate <= position)
        try:
            data = _read(_path(directory, start), position - start, limit_bytes)
        except FileNotFoundError:
            continue  # It was dropped just now.
        if not data:
            break
        parts.append(data)
        position += len(data)
        limit_bytes -= len(data)
    return first, b"".join(parts)


def output_end(directory: str) -> int:
    """The offset after the newest byte."""
    starts = segment_starts(directory)
    return _end(directory, starts) if starts else 0


def segment_starts(directory: str) -> list[int]:
    """Offsets at which the files begin, oldest first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if name.isdigit())


def _end(directory: str, starts: list[int]) -> int:
    try:
        return starts[-1] + os.stat(_path(directory, starts[-1])).st_size
    except FileNotFoundError:
        return starts[-1]


def _read(path: str, position: int, limit_bytes: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.pread(descriptor, limit_bytes, position)
    finally:
        os.close(descriptor)


def _path(directory: str, start: int) -> str:
    return f"{directory}/{start:0{_NAME_DIGITS}d}"
