"""A directory as a list of files that can become objects."""

from __future__ import annotations

import os
import stat

from modelyard.runner.light import NamedTuple
from modelyard.runner.names import UnsafeName, check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalFile(NamedTuple):
    """A regular file as it was seen. `name` is relative, with `/`; `path` is absolute; `mark` changes whenever the content does."""

    name: str
    path: str
    size: int
    mark: tuple[int, int, int, int]

    @property
    def modified_at_ns(self) -> int:
        """When it was last written, in nanoseconds since 1970."""
        return self.mark[1]


class Found:
    """What a directory holds.

    Attributes:
        files: in the order of their names.
        empty_directories: relative names of directories that hold nothing.
        skipped: why some entries are left out by rule (links that lead outside, sockets).
        unstorable: why some entries can't be stored at all (names, permissions).
    """

    def __init__(self) -> None:
        self.files: list[LocalFile] = []
        self.empty_directories: list[str] = []
        self.skipped: list[str] = []
        self.unstorable: list[str] = []


def scan(root: str) -> Found:
    """All files below a directory; nothing when it isn't there. Links are followed as long as they stay inside."""
    found = Found()
    real_root = os.path.realpath(root)
    # Directories to visit: relative name, and the real directories on the way there, in which a link would be a loop.
    pending: list[tuple[str, tuple[str, ...]]] = [("", (real_root,))]
    while pending:
        relative, chain = pending.pop()
        try:
            entries = sorted(os.scandir(os.path.join(root, relative)), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            found.unstorable.append(f"'{relative or root}' can't be read ({error.strerror})")
            continue
        if not entries and relative:
            found.empty_directories.append(relative)
        for entry in entries:
            name = f"{relative}/{entry.name}" if relative else entry.name
            pending += _take(entry, name, chain, real_root, found)
    found.files.sort(key=lambda file: file.name)
    return found


def look(name: str, path: str) -> LocalFile | None:
    """The file as it is now, or None when it is gone or no regular file any more."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(seen.st_mode):
        return None
    return LocalFile(name, path, seen.st_size, (seen.st_size, seen.st_mtime_ns, seen.st_ino, seen.st_dev))


def _take(
    entry: os.DirEntry[str], name: str, chain: tuple[str, ...], real_root: str, found: Found
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Put a file into `found`; yield a directory to visit."""
    if entry.is_symlink():
        real = os.path.realpath(entry.path)
        if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
            found.skipped.append(f"the link '{name}' leads outside")
            return
        if real in chain:
            found.skipped.append(f"the link '{name}' leads in a circle")
            return
    try:
        check_name(name)
    except UnsafeName as error:
        found.unstorable.append(str(error))
        return
    if entry.is_dir():
        yield name, (*chain, os.path.realpath(entry.path))
        return
    file = look(name, entry.path)
    if file is not None:
        found.files.append(file)
    elif os.path.lexists(entry.path):
        found.skipped.append(f"'{name}' is not a regular file")
