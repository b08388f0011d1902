"""Use cases of source snapshots: take one, use one, give it up.

A snapshot is a directory of plain files of the platform's, mounted read-only where it is used. A source whose listing looks like one that
was kept is not read again. Snapshots belong to a project and go with the last resource that uses them; a directory has the random id of
its row, so removing one can never meet one that is being made.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.engine import Database
from modelyard.kit.clock import Clock, utc_now
from modelyard.kit.ids import is_id, new_id
from modelyard.resources.projects.model import Project
from modelyard.resources.snapshots import repository
from modelyard.resources.snapshots.errors import NoSnapshot, SnapshotFault
from modelyard.resources.snapshots.model import Snapshot
from modelyard.resources.snapshots.table import SnapshotRow
from modelyard.resources.storages.errors import TreeUnreadable
from modelyard.resources.storages.service import Storages
from modelyard.resources.storages.trees import Kept, Limits, content_digest, listing_digest

log = logging.getLogger(__name__)

_REQUIREMENTS = "requirements.txt"
_IDLE_TIME = timedelta(hours=1)
_BATCH = 100


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """Whether sources are kept, and up to which size."""

    is_enabled: bool = True
    size_bytes: int = 100 * 2**20
    file_count: int = 10_000


class Snapshots:
    """Snapshots of all projects.

    Args:
        root: the directory that holds them, the platform's alone.
    """

    def __init__(
        self,
        database: Database,
        storages: Storages,
        root: Path,
        settings: SnapshotSettings | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._storages = storages
        self._root = root
        self._settings = settings or SnapshotSettings()
        self._clock = clock

    async def take(self, project: Project, uri: str) -> Snapshot:
        """Keep the source as it is now, or find it kept already. It stays for an hour without a use (`hold`). Raises `NoSnapshot`."""
        if not self._settings.is_enabled:
            raise NoSnapshot("the platform is set to keep no sources")
        limits = Limits(self._settings.size_bytes, self._settings.file_count)
        try:
            source = await self._storages.tree(project, uri)
            files = await source.files(limits)
        except TreeUnreadable as reason:
            raise NoSnapshot(str(reason)) from None
        listing = listing_digest(uri, files)
        async with self._database.read() as session:
            known = await repository.by_listing(session, project.id, listing)
        if known is not None and self._directory(known.id).is_dir():
            return self._snapshot(known)
        snapshot_id = new_id()
        draft = self._root / f".{snapshot_id}"
        try:
            await asyncio.to_thread(draft.mkdir, mode=0o755, parents=True)
            kept = await source.copy(files, draft)
            if not all(file.is_as_listed for file in kept):
                listing = snapshot_id  # a name that no listing has: the next one is read again
            return await self._keep(project, uri, snapshot_id, draft, kept, listing)
        except TreeUnreadable as reason:
            raise NoSnapshot(str(reason)) from None
        except OSError as error:
            raise NoSnapshot(f"the platform can't keep it: {error.strerror or error}") from None
        finally:
            await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)

    async def find(self, project: Project, snapshot_id: str, *, must_contain: str | None = None) -> Snapshot:
        """A snapshot of the project, with the file named in it. Raises `SnapshotFault`."""
        async with self._database.read() as session:
            row = await repository.by_id(session, project.id, snapshot_id) if is_id(snapshot_id) else None
        if row is None:
            raise SnapshotFault(
                f"there is no source snapshot '{snapshot_id}' in this project; a snapshot goes with the last training that used it"
            )
        snapshot = self._snapshot(row)
        if must_contain is not None and not (Path(snapshot.directory) / must_contain).is_file():
            raise SnapshotFault(f"there is no '{must_contain}' in the source snapshot '{snapshot_id}'")
        return snapshot

    async def hold(self, session: AsyncSession, project_id: str, snapshot_id: str, key: str) -> bool:
        """The resource with this id uses the snapshot, from the caller's transaction on. False when it has gone meanwhile."""
        row = await repository.by_id(session, project_id, snapshot_id, is_held=True)
        if row is None:
            return False
        await repository.add_use(session, snapshot_id, key)
        return True

    async def release(self, session: AsyncSession, key: str) -> Sequence[str]:
        """The resource uses no snapshot any more. Ids of those that are gone: give them to `discard` after the commit."""
        rows = await repository.used_by(session, key)
        await repository.drop_uses(session, key)
        gone = [row for row in rows if not await repository.is_used(session, row.id)]
        for row in gone:
            await session.delete(row)
        return [row.id for row in gone]

    async def discard(self, ids: Sequence[str]) -> None:
        """Delete the files of snapshots that no row names any more."""
        for snapshot_id in ids:
            await asyncio.to_thread(shutil.rmtree, self._directory(snapshot_id), ignore_errors=True)

    async def sweep(self) -> int:
        """Remove what a crash has left: snapshots that nothing came to use, files that nothing names; how many."""
        async with self._database.write() as session:
            rows = await repository.unused_since(session, self._clock() - _IDLE_TIME, _BATCH)
            idle = [row.id for row in rows]
            for row in rows:
                await session.delete(row)
        orphans = await asyncio.to_thread(self._old_directories)
        async with self._database.read() as session:
            known = await repository.known_ids(session, orphans)
        gone = sorted({*idle, *(each for each in orphans if each not in known)})
        await self.discard(gone)
        return len(gone)

    async def _keep(
        self, project: Project, uri: str, snapshot_id: str, draft: Path, kept: Sequence[Kept], listing: str
    ) -> Snapshot:
        digest = content_digest(kept)
        async with self._database.read() as session:
            known = await repository.by_digest(session, project.id, digest)
        if known is not None and self._directory(known.id).is_dir():
            return self._snapshot(known)
        await asyncio.to_thread(_settle, draft, self._directory(snapshot_id))
        row = SnapshotRow(
            id=snapshot_id,
            project_id=project.id,
            digest=digest,
            listing_digest=listing,
            requirements_digest=next((file.digest for file in kept if file.name == _REQUIREMENTS), None),
            source_uri=uri,
            file_count=len(kept),
            size_bytes=sum(file.size for file in kept),
            created_at=self._clock(),
        )
        async with self._database.write() as session:
            session.add(row)
        return self._snapshot(row)

    def _old_directories(self) -> list[str]:
        deadline = self._clock().timestamp() - _IDLE_TIME.total_seconds()
        try:
            entries = list(os.scandir(self._root))
        except FileNotFoundError:
            return []
        return [entry.name for entry in entries if entry.stat(follow_symlinks=False).st_mtime < deadline]

    def _directory(self, snapshot_id: str) -> Path:
        return self._root / snapshot_id

    def _snapshot(self, row: SnapshotRow) -> Snapshot:
        return Snapshot(
            id=row.id,
            project_id=row.project_id,
            digest=row.digest,
            requirements_digest=row.requirements_digest,
            source_uri=row.source_uri,
            file_count=row.file_count,
            size_bytes=row.size_bytes,
            created_at=row.created_at,
            directory=str(self._directory(row.id)),
        )


def _settle(draft: Path, place: Path) -> None:
    """Bring the files to the disk, and give them their name."""
    for directory, _, names in os.walk(draft):
        for name in [*names, "."]:
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC)  # noqa: PTH118 - of os.walk
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    os.utime(draft)
    draft.rename(place)
    descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
