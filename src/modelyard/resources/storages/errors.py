"""Sentences of storage paths and volumes."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kit.errors import Blocked, Blocker, Conflict, UserError


class StoragePathFault(UserError):
    """A path that can't be used; becomes a fault of the field that held it."""

    code = 400030


class FileMissing(StoragePathFault):
    """The directory is there and lacks the file; becomes a fault of the field that named the file."""

    code = 400031

    def __init__(self, name: str, uri: str) -> None:
        super().__init__(f"there is no '{name}' in {uri}")


class VolumeInUse(Conflict):
    """The volume still has content."""

    code = 409030

    def __init__(self, name: str) -> None:
        super().__init__(f"the NAS volume '{name}' is not empty; delete its content first")


class VolumeMounted(Blocked):
    """What runs uses the volume."""

    code = 409031

    def __init__(self, name: str, users: Sequence[Blocker]) -> None:
        super().__init__(f"the NAS volume '{name}' is used by {{blockers}}; wait for them to end, or stop them", users)


class TreeUnreadable(Exception):
    """A whole directory can't be read, or is larger than wanted; the message says why."""
