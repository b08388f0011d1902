"""The local side of transfers: which files, how they are cut, and how they come to be whole again."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, TypeVar

from modelyard.objectstore.paths import BadStoragePath, ObsPath
from modelyard.sdk.door import CHUNK_BYTES
from modelyard.sdk.errors import TransferFailed

SEGMENT_BYTES = 1024**3
"""Larger files are stored in segments of this size: one PUT may carry 5 GiB, and a broken one begins again."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is: files and bytes, done and in all."""

    file_count: int
    done_file_count: int
    total_bytes: int
    done_bytes: int


OnProgress = Callable[[Progress], object]


class Tally:
    """Adds up the progress of files that move at the same time; safe between threads."""

    def __init__(self, sizes: Mapping[str, int], on_progress: OnProgress | None) -> None:
        self._sizes = sizes
        self._total_bytes = sum(sizes.values())
        self._moved: dict[str, int] = {}
        self._moved_bytes = 0
        self._done: set[str] = set()
        self._on_progress = on_progress
        self._lock = threading.Lock()

    def at(self, name: str, position: int, base: int = 0) -> None:
        """Of this file, `base + position` bytes have moved."""
        with self._lock:
            self._set(name, base + position)
            self._tell()

    def done(self, name: str) -> None:
        """This file is through."""
        with self._lock:
            self._set(name, self._sizes[name])
            self._done.add(name)
            self._tell()

    def _set(self, name: str, position: int) -> None:
        self._moved_bytes += position - self._moved.get(name, 0)
        self._moved[name] = position

    def _tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(len(self._sizes), len(self._done), self._total_bytes, self._moved_bytes))


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a file, in bytes."""

    offset: int
    length: int


def segments_of(size: int, segment_bytes: int) -> Sequence[Segment]:
    """A file of `size` bytes cut in pieces of at most `segment_bytes`."""
    return [Segment(offset, min(segment_bytes, size - offset)) for offset in range(0, size, segment_bytes)]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file to upload, with where it goes. `modified_at` is seconds since 1970; `is_alone` says that it is not from a directory."""

    file: Path
    target: ObsPath
    size: int
    modified_at: float
    is_alone: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object to download: how it was listed (`md5` is None where that is none), and the file that it becomes."""

    name: str
    size: int
    md5: str | None
    file: Path

    def is_there(self) -> bool:
        """Whether the file has this content already. Not told of what is listed as empty, which may be a large object."""
        has_md5 = self.md5 is not None and self.size > 0
        return (
            has_md5
            and self.file.is_file()
            and self.file.stat().st_size == self.size
            and md5_of(self.file, Segment(0, self.size)) == self.md5
        )


class Sized(Protocol):
    """What knows its size in bytes."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...


S = TypeVar("S", bound=Sized)

SMALL_BYTES = 256 * 1024
"""Files up to this size go together where the store takes or gives several at once."""
_BATCH_FILES = 100
_BATCH_BYTES = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class BulkLimits:
    """How much a store takes or gives in one request of several objects; nothing where it knows none."""

    objects: int = 0
    size_bytes: int = 2 * _BATCH_BYTES


def batches_of(files: Sequence[S], limits: BulkLimits) -> tuple[Sequence[Sequence[S]], Sequence[S]]:
    """Small files that go together, and those that go alone."""
    most, room_bytes = min(_BATCH_FILES, limits.objects), min(_BATCH_BYTES, limits.size_bytes // 2)
    batches: list[list[S]] = []
    alone: list[S] = []
    size = 0
    for item in files:
        if most < 2 or item.size > min(SMALL_BYTES, room_bytes):
            alone.append(item)
            continue
        if not batches or len(batches[-1]) == most or size + item.size > room_bytes:
            batches.append([])
            size = 0
        batches[-1].append(item)
        size += item.size
    return batches, alone


def frames_of(batch: Sequence[Outgoing]) -> tuple[bytes, Mapping[str, str]]:
    """The files as one request's body, and the md5 of each by name. Raises OSError, also for one that has grown large meanwhile."""
    parts: list[bytes] = []
    digests: dict[str, str] = {}
    for item in batch:
        with item.file.open("rb") as file:
            content = file.read(2 * SMALL_BYTES)
        if len(content) == 2 * SMALL_BYTES:
            raise OSError(0, "the file became longer while it was being read", str(item.file))
        name, etag = item.target.path, hashlib.md5(content, usedforsecurity=False).hexdigest()
        parts += [json.dumps({"name": name, "size": len(content), "etag": etag}).encode(), b"\n", content]
        digests[name] = etag
    return b"".join(parts), digests


def outgoing(source: Path, path: ObsPath, is_below: bool) -> Sequence[Outgoing]:
    """The files of an upload, sorted. Links to directories are not entered; what is no file (a socket, a pipe, a dangling link) is left
    out with a warning.

    A directory's content goes below `path`; a file becomes `path` itself, or, with `is_below` or when that is a container, goes below it.
    Raises FileNotFoundError, and `TransferFailed` for a name that the store doesn't take, or for one that is no file itself.
    """
    if not source.is_dir():
        if not source.exists():
            raise FileNotFoundError(2, "there is no such file or directory", str(source))
        if not source.is_file():
            raise TransferFailed(f"{source} is {kind_of(source)} and has no content that could be uploaded")
        return [_outgoing(source, path.child(source.name) if is_below or not path.path else path, is_alone=True)]
    found = [file for place, _, names in os.walk(source) for name in names if _has_content(file := Path(place) / name)]
    try:
        return [_outgoing(file, path.child(file.relative_to(source).as_posix())) for file in sorted(found)]
    except BadStoragePath as error:
        raise TransferFailed(f"a file in {source} can't be stored under its name: {error}") from None


def kind_of(path: Path) -> str:
    """What something is that is no regular file, in words."""
    kinds = (
        (Path.is_symlink, "a link that leads nowhere"),
        (Path.is_socket, "a socket"),
        (Path.is_fifo, "a named pipe"),
        (Path.is_block_device, "a device"),
        (Path.is_char_device, "a device"),
    )
    return next((words for is_kind, words in kinds if is_kind(path)), "no regular file")


def md5_of(file: Path, segment: Segment) -> str:
    """The md5 of a piece of a file, as the store writes it."""
    digest = hashlib.md5(usedforsecurity=False)
    remaining = segment.length
    with file.open("rb") as content:
        content.seek(segment.offset)
        while remaining and (chunk := content.read(min(CHUNK_BYTES, remaining))):
            digest.update(chunk)
            remaining -= len(chunk)
    return digest.hexdigest()


def incoming_path(base: Path, path: ObsPath, name: str, is_directory: bool) -> Path:
    """Where an object found at or below `path` is stored. Raises `TransferFailed` for a name that would leave `base`."""
    if name == path.path:
        return base / path.base_name if is_directory or base.is_dir() else base
    relative = PurePosixPath(name[len(path.directory_prefix) :])
    if not relative.parts or relative.is_absolute() or ".." in relative.parts or "\x00" in name:
        raise TransferFailed(f"the object's name {name!r} can't be a file below {base}")
    return base.joinpath(*relative.parts)


class Incoming:
    """A file on its way in. It has another name until it is whole and its md5 is right."""

    def __init__(self, target: Path, on_position: Callable[[int], None]) -> None:
        self._target = target
        self._part = target.with_name(f".{target.name}.part")
        self._on_position = on_position
        self._digest = hashlib.md5(usedforsecurity=False)
        self._length = 0
        self._file: BinaryIO | None = None

    def write(self, chunk: bytes | memoryview) -> None:
        """Take the next piece."""
        if self._file is None:
            self._file = self._open()
        self._file.write(chunk)
        self._digest.update(chunk)
        self._length += len(chunk)
        self._on_position(self._length)

    def finish(self, etag: str | None, length: int) -> None:
        """Check the content against the md5 (None: it isn't one) and the length, and give the file its name."""
        file = self._file or self._open()
        file.close()
        if self._length != length:
            raise TransferFailed(
                f"{self._target} has {self._length} bytes where {length} were listed; was it overwritten meanwhile?"
            )
        if etag and etag != self._digest.hexdigest():
            raise TransferFailed(
                f"{self._target} arrived damaged: its md5 is {self._digest.hexdigest()}, the store has {etag}"
            )
        try:
            self._part.replace(self._target)
        except IsADirectoryError:
            raise TransferFailed(
                f"{self._target} is a directory here and a file in the store: move it away, or choose another place"
            ) from None

    def discard(self) -> None:
        """Give up; nothing stays."""
        if self._file is not None:
            self._file.close()
        self._part.unlink(missing_ok=True)

    def _open(self) -> BinaryIO:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        return self._part.open("wb")


def missing_of(batch: Sequence[Wanted]) -> Sequence[Wanted]:
    """Those whose content is not there yet."""
    return [item for item in batch if not item.is_there()]


def take_frames(body: bytes, wanted: Sequence[Wanted], is_given_up: Callable[[], bool]) -> Sequence[Wanted]:
    """Make files of the objects in an answer of several; those that are left. What did not come, or not as it was listed, is to be asked for
    by itself: that answer says why."""
    left = {item.name: item for item in wanted}
    begin = 0
    try:
        while begin < len(body) and not is_given_up():
            end = body.index(b"\n", begin)
            head: dict[str, Any] = json.loads(body[begin:end])
            begin = end + 1 + int(head["size"])
            item = left.get(str(head["name"]))
            if item is not None and _is_taken(item, memoryview(body)[end + 1 : begin], str(head["etag"])):
                del left[item.name]
    except (ValueError, TypeError, KeyError):
        return [*left.values()]
    return [*left.values()]


def _is_taken(item: Wanted, content: memoryview, etag: str) -> bool:
    incoming = Incoming(item.file, lambda _: None)
    try:
        incoming.write(content)
        incoming.finish(etag, item.size)
    except TransferFailed:
        incoming.discard()
        return False
    except BaseException:
        incoming.discard()
        raise
    return True


def _has_content(file: Path) -> bool:
    if file.is_file():
        return True
    warnings.warn(f"{file} is {kind_of(file)}: it is not uploaded", stacklevel=2)
    return False


def _outgoing(file: Path, target: ObsPath, *, is_alone: bool = False) -> Outgoing:
    stat = file.stat()
    return Outgoing(file, target, stat.st_size, stat.st_mtime, is_alone)
