"""Opening host paths that pass through directories in which tenants may write.

A network directory is written by workloads and mounted by the platform, which may be root: a symbolic link that a workload left in
it must not lead root elsewhere. Links that root or the platform's user made are followed, anybody else's are refused; the walk goes
from descriptor to descriptor, so nothing can be exchanged between the look and the use. Standard library only, light parts only.
"""

# Plain `os` calls on purpose: pathlib costs a third of the supervisor's whole start.
# ruff: noqa: PTH101
from __future__ import annotations

import errno
import os
import stat

_MAX_LINKS = 40


def open_path(path: str) -> int:
    """An O_PATH descriptor of this absolute path. Raises PermissionError where a link of somebody else's is in the way."""
    return _walk(path, is_made=False, gid=None)


def make_shared(path: str, gid: int | None) -> None:
    """Make the directory if it is missing, and let the group `gid` (None: nobody else) read and write in it, new files included."""
    descriptor = _walk(path, is_made=True, gid=gid)
    try:
        if gid is None:
            return
        status = os.fstat(descriptor)
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        mode = stat.S_IMODE(status.st_mode) | stat.S_ISGID | stat.S_IRWXG
        if (status.st_gid, stat.S_IMODE(status.st_mode)) != (gid, mode):
            os.chown(f"/proc/self/fd/{descriptor}", -1, gid)
            os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)


def _walk(path: str, *, is_made: bool, gid: int | None) -> int:
    pending = [part for part in reversed(path.split("/")) if part not in {"", "."}]
    trail = [os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    links = 0
    try:
        while pending:
            name = pending.pop()
            if name == "..":
                if len(trail) > 1:
                    os.close(trail.pop())
                continue
            descriptor = _step(trail[-1], name, is_made, gid)
            status = os.fstat(descriptor)
            if not stat.S_ISLNK(status.st_mode):
                trail.append(descriptor)
                continue
            try:
                target = os.readlink("", dir_fd=descriptor)
            finally:
                os.close(descriptor)
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if status.st_uid not in {0, os.geteuid()}:
                raise PermissionError(errno.EPERM, "A symbolic link that is not the platform's is in the way", path)
            if target.startswith("/"):
                while len(trail) > 1:
                    os.close(trail.pop())
            pending.extend(part for part in reversed(target.split("/")) if part not in {"", "."})
        return trail.pop()
    finally:
        for descriptor in trail:
            os.close(descriptor)


def _step(parent: int, name: str, is_made: bool, gid: int | None) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if not is_made:
            raise
    try:
        os.mkdir(name, 0o770, dir_fd=parent)
    except FileExistsError:
        return os.open(name, flags, dir_fd=parent)
    descriptor = os.open(name, flags, dir_fd=parent)
    if gid is not None:
        os.chown(f"/proc/self/fd/{descriptor}", -1, gid)
        os.chmod(f"/proc/self/fd/{descriptor}", 0o2770)  # noqa: S103 - the group is the point
    return descriptor
