"""Mounts a file that holds a file system, through a loop device that vanishes with the mount (`loop(4)`).

The device is attached with AUTOCLEAR: when the last mount of it ends, be it because the namespace of a killed instance ended, the kernel
detaches it. Standard library only, light parts only: the forked child uses this.
"""

# Plain `os` calls on purpose: pathlib costs a third of the supervisor's whole start.
# ruff: noqa: PTH110, PTH123, PTH208
from __future__ import annotations

import errno
import fcntl
import os
import struct

from modelyard.compute.backends.local import kernel

_LOOP_CONFIGURE, _LOOP_CTL_GET_FREE = 0x4C0A, 0x4C82
_FLAG_AUTOCLEAR = 4
_INFO_BYTES, _RESERVED_BYTES, _BLOCK_BYTES = 232, 64, 4096
_FLAGS_AT = 52  # of `struct loop_info64`
_MAJOR = 7
_TRIES = 50


def attach(image: str) -> tuple[str, int]:
    """A device that shows the file, and the descriptor that keeps it attached until it is mounted. Raises OSError."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(_TRIES):
                device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
                if (descriptor := _configured(device, backing)) is not None:
                    return device, descriptor
        finally:
            os.close(control)
    finally:
        os.close(backing)
    raise OSError(errno.EBUSY, "no loop device is free", image)


def mount_device(device: str, descriptor: int, target: str) -> None:
    """Mount what is attached; from here on the mount keeps it. Raises OSError."""
    try:
        kernel.mount(device, target, "ext4", kernel.MS_NOSUID | kernel.MS_NODEV, "discard")
    finally:
        os.close(descriptor)


def is_attached(image: str) -> bool:
    """Whether a loop device of this machine has the file open: somebody has mounted it."""
    try:
        names = os.listdir("/sys/block")
    except OSError:
        return False
    wanted = os.path.realpath(image)
    for name in names:
        if not name.startswith("loop"):
            continue
        try:
            with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
                if file.read().rstrip("\n") == wanted:
                    return True
        except OSError:
            continue
    return False


def try_mount(image: str, directory: str) -> str | None:
    """Mount it in a namespace of a forked child that ends at once; None when that worked, else the reason."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        text = b""
        try:
            kernel.unshare_mounts()
            mount_device(*attach(image), directory)
        except BaseException as error:
            text = str(error).encode(errors="replace")[:500] or b"it failed"
        os.write(write_end, text)
        os._exit(0)
    os.close(write_end)
    text = os.read(read_end, 600)
    os.close(read_end)
    os.waitpid(pid, 0)
    return text.decode(errors="replace") or None


def _configured(device: str, backing: int) -> int | None:
    """A descriptor of the device, ours now; None when another process was faster."""
    if not os.path.exists(device):
        os.mknod(device, 0o60660, os.makedev(_MAJOR, int(device.removeprefix("/dev/loop"))))
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    info = bytearray(_INFO_BYTES)
    struct.pack_into("I", info, _FLAGS_AT, _FLAG_AUTOCLEAR)
    config = struct.pack("II", backing, _BLOCK_BYTES) + bytes(info) + bytes(_RESERVED_BYTES)
    try:
        fcntl.ioctl(descriptor, _LOOP_CONFIGURE, config)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EBUSY:
            return None
        raise
    return descriptor
