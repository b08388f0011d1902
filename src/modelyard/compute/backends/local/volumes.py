"""Storage that outlives instances, and storage of a fixed size.

Where the platform is root and the machine has loop devices, storage is a file with an ext4 file system in it: it can't grow beyond its
size, whatever the user does in it, and takes only the blocks that are in use. The instance's child mounts it in a mount namespace of its
own (`child`), so a mount ends with the instance, also when everything was killed. Elsewhere storage is a plain directory; then its size is
looked at now and then (`usage`).

A volume is used by one instance at a time: two mounts of one file system would destroy it. The loop device itself is the record of that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from modelyard.compute.backends.local import loops, removal
from modelyard.kit.errors import RetryLater

IMAGE, FILES = "image", "files"
WORKSPACE_IMAGE = "workspace.image"
_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")
_PROBE_BYTES = 16 << 20
_FORMAT_SECONDS = 120.0
_SMALLEST_BYTES = 16 << 20
_SMALLEST_SCRATCH_BYTES = 64 << 20
_FORMAT_OPTIONS = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
_FORMATTER = ("mkfs.ext4", "/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4")


@dataclass(frozen=True, slots=True)
class Storage:
    """One volume on this machine: a file with a file system (`is_image`), or a directory."""

    path: Path
    is_image: bool


class VolumeStore:
    """The volumes below `root`, and a way to make storage of a fixed size.

    Args:
        has_images: whether this machine can mount files (`can_mount_images`).
    """

    def __init__(self, root: Path, *, has_images: bool) -> None:
        self._root = root
        self._has_images = has_images

    def open(self, volume_id: str, size_bytes: int, uid: int | None, gid: int | None) -> Storage:
        """The volume, made if it is missing. Raises RetryLater while another instance uses it."""
        place = self._place(volume_id)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        image, files = place / IMAGE, place / FILES
        if files.is_dir():
            return Storage(files, is_image=False)
        if not image.exists() and not self._has_images:
            files.mkdir(mode=0o700)
            _give(files, uid, gid)
            return Storage(files, is_image=False)
        if not image.exists():
            make_image(image, size_bytes)
        elif not self._has_images:
            raise RetryLater(f"The storage '{volume_id}' is a file system image, and this machine can't mount it now.")
        if loops.is_attached(str(image)):
            raise RetryLater(f"The storage '{volume_id}' is still in use.", delay_seconds=0.2)
        return Storage(image, is_image=True)

    def boot(self, directory: Path, size_bytes: int, uid: int | None, gid: int | None) -> Storage:
        """Fresh storage for the root of an instance's file system, in the instance's own directory."""
        if not self._has_images:
            files = directory / "boot"
            files.mkdir(mode=0o755, exist_ok=True)
            _give(files, uid, gid)
            return Storage(files, is_image=False)
        image = directory / "boot.image"
        image.unlink(missing_ok=True)
        make_image(image, size_bytes)
        return Storage(image, is_image=True)

    def scratch(self, directory: Path, size_bytes: int) -> Storage | None:
        """Fresh storage for the working files of an instance; None where only looking holds them to their size."""
        if not self._has_images or size_bytes < _SMALLEST_SCRATCH_BYTES:
            return None
        image = directory / WORKSPACE_IMAGE
        image.unlink(missing_ok=True)
        make_image(image, size_bytes)
        return Storage(image, is_image=True)

    def exists(self, volume_id: str) -> bool:
        """Whether there is such a volume."""
        place = self._place(volume_id)
        return (place / IMAGE).exists() or (place / FILES).exists()

    def remove(self, volume_id: str, trash: Path) -> None:
        """Delete a volume. Raises RetryLater while an instance uses it."""
        place = self._place(volume_id)
        if loops.is_attached(str(place / IMAGE)):
            raise RetryLater(f"The storage '{volume_id}' is still in use.", delay_seconds=0.2)
        removal.put_aside(place, trash)
        removal.empty(trash)

    def _place(self, volume_id: str) -> Path:
        if not _ID.fullmatch(volume_id):
            raise ValueError(f"'{volume_id}' can't be a volume's id")
        return self._root / volume_id


def make_image(path: Path, size_bytes: int) -> None:
    """A file with an empty file system of this size in it, whole or not at all. Blocks that are not used take no room."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(descriptor, max(size_bytes, _SMALLEST_BYTES))
    finally:
        os.close(descriptor)
    formatter = _formatter()
    if formatter is None:
        raise RetryLater("mkfs.ext4 is missing. Install the package e2fsprogs.")
    command = [formatter, "-q", "-F", "-m", "0", "-b", "4096", "-E", _FORMAT_OPTIONS, str(draft)]
    try:
        done = subprocess.run(
            command, timeout=_FORMAT_SECONDS, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.SubprocessError as error:
        raise RetryLater(f"A file system could not be made: {error}") from error
    if done.returncode != 0:
        draft.unlink(missing_ok=True)
        raise RetryLater(f"A file system could not be made: {done.stderr.strip()[:500]}")
    draft.rename(path)


def can_mount_images(directory: Path) -> str | None:
    """None where a file with a file system in it can be mounted here; otherwise what is missing. Tries it."""
    if os.geteuid() != 0:
        return "the platform is not root"
    if _formatter() is None:
        return "mkfs.ext4 is missing (package e2fsprogs)"
    image = directory / f".probe.{os.getpid()}.image"
    try:
        make_image(image, _PROBE_BYTES)
        return loops.try_mount(str(image), str(directory))
    except (OSError, RetryLater) as error:
        return str(error)
    finally:
        image.unlink(missing_ok=True)


def _formatter() -> str | None:
    return next((found for name in _FORMATTER if (found := shutil.which(name))), None)


def _give(directory: Path, uid: int | None, gid: int | None) -> None:
    if uid is not None and gid is not None:
        os.chown(directory, uid, gid)
