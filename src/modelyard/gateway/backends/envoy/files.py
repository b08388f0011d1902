"""Files that are replaced in one step, so that whoever watches or reads them never sees half of one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Put the content under the path by renaming a finished file.

    The file is not forced to the disk: what lies here can be made again from the platform's database, and a route change must not wait
    for a disk.
    """
    new = path.with_name(f".{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    new.replace(path)


def identity(path: Path) -> tuple[int, int, int] | None:
    """What changes when somebody replaces or rewrites the file; None when it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def keep_older(path: Path, count: int) -> None:
    """Put the file aside as `name.1`, older ones as `name.2` and so on; of these `count` are kept."""
    for number in range(count - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))


def cut_file(path: Path, limit_bytes: int) -> None:
    """Empty a log that grew over the limit, keeping a copy as `name.1`. Its writer must append (O_APPEND), so that it goes on at the new end."""
    status = identity(path)
    if status is not None and status[2] > limit_bytes:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)
