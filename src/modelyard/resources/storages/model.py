"""Where a storage path leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

DOOR = "⟦modelyard:door⟧"
"""In what an instance is told: the front door's URL as instances reach it. It is filled in at each launch, since it may change."""


COPY_SCHEME = "copy://"
"""The platform's own copies. Users can't write such a path: it is no storage path."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file below a path: its name relative to the path, bytes, and the store's tag of its content (None on volumes)."""

    name: str
    size: int
    tag: str | None = None


class PathReader(Protocol):
    """Reads what lies at a path, with the rights of the project's instances. Both verbs raise `StoragePathFault` and `RetryLater`."""

    async def list(self, limit: int) -> tuple[Sequence[StoredFile], bool]:
        """Files below the path by name, at most so many, and whether these are all. A path of a file answers that file."""
        ...

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a file of the listing; fewer where it ends."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectLocation:
    """A path in an object store, as an instance reaches it through the platform's front door.

    Attributes:
        container_url: `{DOOR}/v1/AUTH_x/container`.
        prefix: the directory or object in the container; empty for all of it.
    """

    label: str
    container_url: str
    prefix: str


@dataclass(frozen=True, slots=True)
class VolumeLocation:
    """A path on a NAS volume.

    Attributes:
        root: the volume's directory on the host.
        mount_point: where instances see the volume.
        path: the place itself, as instances see it.
    """

    label: str
    root: str
    mount_point: str
    path: str


Location = ObjectLocation | VolumeLocation
