"""Becomes a program for which symbolic links below one directory lead nowhere: `python -I -S confined.py DIRECTORY PROGRAM ARGUMENTS…`.

Upstreams listen on Unix sockets in directories in which users' code may write. Such code can put a link to another socket of this machine in the
place of its own: another notebook's, Envoy's administration, the platform's server. Envoy follows links, so it gets a mount namespace of its own,
in which that directory forbids it (`MS_NOSYMFOLLOW`, Linux 5.10). Where the kernel refuses, the program runs without, and its log says so.
Standard library only, and little of it: everybody waits for Envoy.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REMOUNT, _MS_NOSYMFOLLOW, _MS_BIND, _MS_REC, _MS_SLAVE = 32, 256, 4096, 16384, 1 << 19
# What a mount has already can't be taken from it in a user namespace: (statvfs's bit, mount's).
_KEPT = (
    (os.ST_RDONLY, 1),
    (os.ST_NOSUID, 2),
    (os.ST_NODEV, 4),
    (os.ST_NOEXEC, 8),
    (os.ST_NOATIME, 1024),
    (4096, 1 << 21),
)

_libc = ctypes.CDLL(None, use_errno=True)


def confine(directory: str) -> None:
    """Links below this directory are not followed by the calling process from now on, nor by what it becomes. Raises OSError."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _check(_libc.unshare(_CLONE_NEWNS))
    else:
        _check(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER))
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            (Path("/proc/self") / name).write_text(text, encoding="ascii")
    _mount("none", "/", _MS_REC | _MS_SLAVE)
    _mount(directory, directory, _MS_BIND)
    present = os.statvfs(directory).f_flag
    kept = sum(flag for bit, flag in _KEPT if present & bit)
    _mount("none", directory, _MS_REMOUNT | _MS_BIND | _MS_NOSYMFOLLOW | kept)


def main() -> None:
    """Confine, and become the program."""
    directory, *command = sys.argv[1:]
    try:
        confine(directory)
    except OSError as error:
        sys.stderr.write(f"[warning] symbolic links below {directory} are followed: {error.strerror}\n")
        sys.stderr.flush()
    os.execve(command[0], command, {})  # noqa: S606 - a program with its arguments, no shell


def _mount(source: str, target: str, flags: int) -> None:
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None))


def _check(answer: int) -> None:
    if answer == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
