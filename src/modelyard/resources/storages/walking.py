"""What lies below a storage path: objects by their listing, files of a volume without following a link."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

from modelyard.objectstore.paths import ObsPath
from modelyard.objectstore.port import ObjectStat, ObjectStore
from modelyard.runner.names import SEGMENTS_PREFIX

_PAGE_SIZE = 1000


async def objects_below(
    store: ObjectStore, path: ObsPath, page_size: int = _PAGE_SIZE
) -> AsyncIterator[tuple[str, ObjectStat]]:
    """Objects with their names relative to the path; neither what stands for a directory, nor the segments of large objects.

    Raises what `ObjectStore.list` raises.
    """
    prefix, marker = path.directory_prefix, ""
    while marker is not None:
        page = await store.list(path, prefix=prefix, marker=marker, limit=min(page_size, _PAGE_SIZE))
        for found in page.objects:
            name = found.name.removeprefix(prefix)
            if name and not name.endswith("/") and (prefix or not name.startswith(SEGMENTS_PREFIX)):
                yield name, found
        marker = page.marker


def open_below(root: Path, relative: str, flags: int = os.O_NONBLOCK) -> int:
    """A descriptor of what lies at a path, reached one step after the other without following a link; pipes don't block. Raises OSError."""
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    parts = [part for part in relative.split("/") if part]
    for number, part in enumerate(parts, 1):
        kind = flags if number == len(parts) else os.O_DIRECTORY
        try:
            below = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind, dir_fd=place)
        finally:
            os.close(place)
        place = below
    return place
