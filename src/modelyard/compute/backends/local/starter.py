"""Starts supervisors by forking: one interpreter that has loaded what each of them needs waits for the server to name a directory.

To start an interpreter and load all of that takes ten times the processor time of what a supervisor then does for a short instance. Nothing of any
instance is ever in this process: a supervisor reads its plan after the fork. Standard library only, light parts only.
"""

# Plain `os` calls on purpose: see `supervisor`.
from __future__ import annotations

import _socket
import gc
import os
import sys

from modelyard.compute.backends.local import kernel, supervisor

DIRECTORY_BYTES = 4096
"""The longest name of a directory."""
_DESCRIPTOR_BYTES = 4


def serve() -> int:
    """Start a supervisor for each directory that is named at standard input (a socket of packets), until the other end is closed.

    Each packet is a directory, and carries two descriptors: for the supervisor's first word, and for what it has to complain about.
    """
    kernel.set_name("my-starter")
    door = _socket.socket(fileno=os.dup(0))
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    gc.freeze()  # what is shared with the supervisors is not written to for their sake
    while True:
        directory, *descriptors = _receive(door)
        if not directory:
            return 0
        child = os.fork()
        if child == 0:
            door.close()
            answer, errors = descriptors
            for descriptor, target in ((answer, 1), (errors, 2)):
                os.dup2(descriptor, target)
                os.close(descriptor)
            supervisor.main(directory)
            os._exit(
                0
            )  # Nothing is left to tidy up, and to take an interpreter down costs as much as a supervisor does.
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(child, 0)  # it has only detached the supervisor


def _receive(door: _socket.socket) -> tuple[str, *tuple[int, ...]]:
    space = _socket.CMSG_SPACE(2 * _DESCRIPTOR_BYTES)
    packet, rights, _flags, _address = door.recvmsg(DIRECTORY_BYTES, space, _socket.MSG_CMSG_CLOEXEC)
    descriptors = [
        int.from_bytes(data[place : place + _DESCRIPTOR_BYTES], sys.byteorder)
        for _level, _kind, data in rights
        for place in range(0, len(data), _DESCRIPTOR_BYTES)
    ]
    return os.fsdecode(packet), *descriptors
