"""Where a storage path leads."""

from __future__ import annotations

from dataclasses import dataclass

DOOR = "⟦modelyard:door⟧"
"""In what an instance is told: the front door's URL as instances reach it. It is filled in at each launch, since it may change."""


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
