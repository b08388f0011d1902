"""What can be wrong with snapshots."""

from __future__ import annotations

from modelyard.kit.errors import UserError


class NoSnapshot(Exception):
    """A source can't be kept; the message is a sentence that says why, for the training that goes on without."""


class SnapshotFault(UserError):
    """A snapshot that was asked for can't be used; becomes a fault of the field that named it."""

    code = 400032
