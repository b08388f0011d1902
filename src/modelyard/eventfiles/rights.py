"""Gives up every right of root but the one to read any file (`capabilities(7)`, `prctl(2)`). Where the process is not root there is nothing to do.

The numbers are those of the kernel's headers (`include/uapi/linux/capability.h`, `prctl.h`), the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import struct

_NOBODY = 65534
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION = 0x20080522
_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 8, 38, 4


def keep_only_reading() -> bool:
    """Become nobody who may read everything, for good. False where that was not needed or not possible."""
    if os.geteuid() != 0:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = 1 << _CAP_DAC_READ_SEARCH
    header = ctypes.create_string_buffer(struct.pack("<Ii", _CAPABILITY_VERSION, 0))
    sets = ctypes.create_string_buffer(struct.pack("<6I", wanted, wanted, 0, 0, 0, 0))
    if libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0:
        return False
    try:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError:
        return False  # a container without these rights: it is confined already
    has_right = libc.capset(header, sets) == 0
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return has_right
