"""Sentences of storage paths and volumes."""

from __future__ import annotations

from modelyard.kit.errors import Conflict, UserError


class StoragePathFault(UserError):
    """A path that can't be used; becomes a fault of the field that held it."""

    code = 400030


class VolumeInUse(Conflict):
    """The volume still has content."""

    code = 409030

    def __init__(self, name: str) -> None:
        super().__init__(f"the NAS volume '{name}' is not empty; delete its content first")
