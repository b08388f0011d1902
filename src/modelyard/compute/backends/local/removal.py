"""Deletes what instances leave behind, whatever they did to it.

Directories may be nested deeper than a path can be long, made read-only, or owned by another user, and links may point anywhere. So
nothing is followed and nothing is descended into: every directory that is found is first moved up beside the top one, and everything
happens one level below an open descriptor.
"""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def put_aside(path: Path, trash: Path) -> None:
    """Take a directory out of sight at once; `empty` deletes it. A missing one is fine."""
    trash.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.rename(trash / uuid.uuid4().hex)


def empty(trash: Path) -> None:
    """Delete everything in this directory (not the directory itself). What can't be deleted stays for the next time."""
    try:
        top = os.open(trash, _DIRECTORY)
    except FileNotFoundError:
        return
    kept: set[str] = set()
    try:
        while pending := [name for name in os.listdir(top) if name not in kept]:  # noqa: PTH208 - of a descriptor
            for name in pending:
                if not _deleted(top, name):
                    kept.add(name)
    finally:
        os.close(top)


def _deleted(top: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=top)
    except IsADirectoryError:
        return _emptied(top, name)
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    return True


def _emptied(top: int, name: str) -> bool:
    """Delete the files of a directory, move its directories to the top, and delete it."""
    try:
        _make_writable(top, name)
        directory = os.open(name, _DIRECTORY, dir_fd=top)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        for entry in os.listdir(directory):  # noqa: PTH208 - of a descriptor
            try:
                os.unlink(entry, dir_fd=directory)
            except IsADirectoryError:
                _make_writable(directory, entry)  # a directory that moves is written to: its `..` changes
                os.rename(entry, uuid.uuid4().hex, src_dir_fd=directory, dst_dir_fd=top)
            except FileNotFoundError:
                continue
        os.rmdir(name, dir_fd=top)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    finally:
        os.close(directory)
    return True


def _make_writable(parent: int, name: str) -> None:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IRWXU != stat.S_IRWXU and status.st_uid == os.geteuid():
        os.chmod(name, 0o700, dir_fd=parent)
