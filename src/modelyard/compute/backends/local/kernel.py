"""The few calls of Linux that Python's light modules lack, by ctypes.

The supervisor and the forked child need them. They stay clear of `signal`, `socket`, `subprocess`, `json` and `dataclasses`: each of
those pulls in `enum` and `re`, which costs more than starting the interpreter does. Constants are those of the kernel's headers,
which are the same on every architecture that Python ships for (`include/uapi/linux`).
"""

from __future__ import annotations

import ctypes
import os

SIGHUP, SIGINT, SIGKILL, SIGUSR1, SIGTERM, SIGCHLD, SIGCONT, SIGSTOP = 1, 2, 9, 10, 15, 17, 18, 19

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 19

IN_CREATE, IN_CLOSE_WRITE, IN_MOVED_TO, IN_DELETE_SELF = 0x100, 0x8, 0x80, 0x400

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 15, 36, 38
_SIG_BLOCK, _SIG_SETMASK = 0, 2
_SFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK

SIGNAL_RECORD_BYTES = 128
"""Size of one `struct signalfd_siginfo`; its first four bytes are the signal's number."""

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signal_number: int) -> None:
    """Let the kernel send this signal to the calling process when its parent ends (`prctl(2)`, PR_SET_PDEATHSIG).

    Must follow any change of credentials, which clears it.
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "PR_SET_PDEATHSIG")


def become_subreaper() -> None:
    """Adopt the orphans among all descendants (PR_SET_CHILD_SUBREAPER)."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def forbid_new_privileges() -> None:
    """No program started from here on can gain privileges by its file's bits (PR_SET_NO_NEW_PRIVS)."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def set_name(name: str) -> None:
    """The name that `ps` and `top` show, at most 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0), "PR_SET_NAME")


def unshare_mounts() -> None:
    """Give the calling process a mount namespace of its own, into which mounts of the outside still come but out of which none go."""
    _check(_libc.unshare(CLONE_NEWNS), "unshare")
    mount("none", "/", None, MS_REC | MS_SLAVE)


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """`mount(2)`. Raises OSError that names the target."""
    answer = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    _check(answer, target)


def sync_file_system(directory: str) -> None:
    """Bring everything that was written to the file system of this directory to the disk (`syncfs(2)`)."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(_libc.syncfs(descriptor), directory)
    finally:
        os.close(descriptor)


def open_signals(numbers: tuple[int, ...]) -> int:
    """Block these signals and answer a descriptor from which they are read instead (`signalfd(2)`)."""
    mask = _mask(numbers)
    _check(_libc.sigprocmask(_SIG_BLOCK, mask, None), "sigprocmask")
    return _check(_libc.signalfd(-1, mask, _SFD_FLAGS), "signalfd")


def unblock_signals() -> None:
    """Block no signal any more: what is executed next must not inherit a mask."""
    _check(_libc.sigprocmask(_SIG_SETMASK, _mask(()), None), "sigprocmask")


def restore_default(signal_number: int) -> None:
    """Python ignores SIGPIPE and SIGXFSZ; an executed program expects the defaults."""
    _libc.signal.restype = ctypes.c_void_p
    _libc.signal(signal_number, None)


def open_watch(directory: str, mask: int) -> int:
    """A descriptor that becomes readable when something in this directory changes (`inotify(7)`). Raises OSError where watches ran out."""
    descriptor = _check(_libc.inotify_init1(_SFD_FLAGS), "inotify_init1")
    add_watch(descriptor, directory, mask)
    return descriptor


def add_watch(descriptor: int, directory: str, mask: int) -> None:
    """Watch one more directory with the same descriptor."""
    _check(_libc.inotify_add_watch(descriptor, os.fsencode(directory), mask), directory)


def _mask(numbers: tuple[int, ...]) -> ctypes.Array[ctypes.c_uint64]:
    # sigset_t is 128 bytes in glibc and musl; only the first 64 bits are in use.
    words = (ctypes.c_uint64 * 16)()
    for number in numbers:
        words[0] |= 1 << (number - 1)
    return words


def _check(answer: int, subject: str) -> int:
    if answer == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
    return answer
