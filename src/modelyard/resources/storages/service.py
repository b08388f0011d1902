"""Use cases of storage: where a path leads, whether it can be read or written, and NAS volumes.

Everything that an instance will do is checked here first as the account that the instance will act as, so that a missing path or
permission is told when the request is made and not minutes later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.idempotency import claim, remember
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import Blocker, NotFound
from modelyard.kit.ids import is_id, new_id
from modelyard.objectstore.access import Access, Principal
from modelyard.objectstore.hosts import StoreHosts
from modelyard.objectstore.paths import BadStoragePath, NasPath, ObsPath, parse_storage_path
from modelyard.objectstore.port import ChecksAccess, NoSuchPath, ObjectStore, StoreRefused, StoreUnreachable
from modelyard.resources.projects.model import Caller, Project
from modelyard.resources.storages import repository
from modelyard.resources.storages.copies import Copies, digest_of, digest_of_tags
from modelyard.resources.storages.errors import (
    FileMissing,
    StoragePathFault,
    TreeUnreadable,
    VolumeInUse,
    VolumeMounted,
)
from modelyard.resources.storages.model import (
    COPY_SCHEME,
    DOOR,
    Location,
    ObjectLocation,
    PathReader,
    StoredFile,
    VolumeLocation,
)
from modelyard.resources.storages.reading import ObjectReader, VolumeReader
from modelyard.resources.storages.schemas import NasVolumeCreate, NasVolumeOut
from modelyard.resources.storages.table import VolumeRow
from modelyard.resources.storages.trees import ObjectTree, VolumeTree

KIND = "nas_volume"
MOUNT_ROOT = "/mnt/nas"
COPY_MOUNT_ROOT = "/mnt/models"


VolumeUsers = Callable[[AsyncSession, str, str], Awaitable[Sequence[Blocker]]]
"""Given project and volume, what runs on it now, or soon."""


class Storages:
    """Finds and checks storage paths of projects.

    Args:
        door_url: the front door, e.g. `http://127.0.0.1:10090`, for people.
        volumes_root: the directory that holds the volumes.
        copies_root: the directory that holds the platform's own copies; beside the volumes' unless given.
    """

    def __init__(
        self,
        database: Database,
        hosts: StoreHosts,
        *,
        door_url: str,
        volumes_root: Path,
        copies_root: Path | None = None,
    ) -> None:
        self._database = database
        self._hosts = hosts
        self._door_url = door_url.rstrip("/")
        self._volumes_root = volumes_root
        self.volume_users: list[VolumeUsers] = []
        self._copies = Copies(copies_root or volumes_root.with_name("copies"))

    async def locate(self, project: Project, uri: str) -> Location:
        """Where the path leads, or the platform's own copy (`copy://{id}`). Raises `StoragePathFault` with the reason."""
        if uri.startswith(COPY_SCHEME):
            place = await self._copy_place(project, uri)
            mount_point = f"{COPY_MOUNT_ROOT}/{place.name}"
            return VolumeLocation(uri, str(place), mount_point, mount_point)
        path = _parse(uri)
        if isinstance(path, NasPath):
            root = await self._volume_root(project, path)
            mount_point = f"{MOUNT_ROOT}/{path.storage_id}"
            return VolumeLocation(uri, str(root), mount_point, f"{mount_point}/{path.path}".rstrip("/"))
        container = ObsPath(path.host, path.version, path.tenant, path.container)
        try:
            self._hosts.check(path, project_id=project.id)
            return ObjectLocation(uri, DOOR + self._hosts.door_path(container), path.path)
        except StoreRefused as refusal:
            raise StoragePathFault(str(refusal)) from None

    async def tree(self, project: Project, uri: str) -> ObjectTree | VolumeTree:
        """All files at a path, to be read as the account that instances act as. Raises `TreeUnreadable`."""
        try:
            path = _parse(uri)
            if isinstance(path, NasPath):
                return VolumeTree(await self._volume_root(project, path), path.path)
        except StoragePathFault as fault:
            raise TreeUnreadable(str(fault)) from None
        return ObjectTree(self._hosts, path, system_principal(project))

    async def check_readable(self, project: Project, uri: str, *, must_contain: str | None = None) -> None:
        """Raise `StoragePathFault` unless something is there that instances may read; `FileMissing` unless the file named is in it."""
        path = _parse(uri)
        if isinstance(path, NasPath):
            root = await self._volume_root(project, path)
            await asyncio.to_thread(_check_directory, root, path.path, uri, must_contain)
            return
        await self._check_objects(project, path, uri, must_contain)

    async def check_writable(self, project: Project, uri: str) -> None:
        """Raise `StoragePathFault` unless instances may write there (and read, to go on where they were)."""
        path = _parse(uri)
        if isinstance(path, NasPath):
            root = await self._volume_root(project, path)
            await asyncio.to_thread(_check_output_directory, root, path.path, uri)
            return
        for wanted in (Access.WRITE, Access.READ):
            await self._check_access(project, path, uri, wanted)

    async def reader(self, project: Project, uri: str) -> PathReader:
        """Reads what lies at the path. Raises `StoragePathFault` unless instances may."""
        path = _parse(uri)
        if isinstance(path, NasPath):
            return VolumeReader(await self._volume_root(project, path), path.path, uri)
        await self._check_access(project, path, uri, Access.READ)
        return ObjectReader(self._hosts.find(path, project_id=project.id), path, uri)

    async def check_copy(self, project: Project, uri: str) -> None:
        """Raise `StoragePathFault` unless the platform's copy `copy://{id}` is there."""
        await self._copy_place(project, uri)

    async def keep_copy(self, project_id: str, copy_id: str, reader: PathReader, files: Sequence[StoredFile]) -> str:
        """Make the platform's own copy of files; their digest. Raises `StoragePathFault`, `RetryLater`."""
        return await self._copies.keep(reader, files, project_id, copy_id)

    async def remove_copy(self, project_id: str, copy_id: str) -> None:
        """Take a copy away; what is not there is fine."""
        await self._copies.remove(project_id, copy_id)

    async def digest(self, reader: PathReader, files: Sequence[StoredFile], *, max_read_bytes: int) -> str | None:
        """A digest of files: of the store's tags, else of their contents, unless that are more bytes."""
        by_tags = digest_of_tags(files)
        if by_tags is not None or sum(file.size for file in files) > max_read_bytes:
            return by_tags
        return await digest_of(reader, files)

    def object_store_url(self, project: Project) -> str:
        """The project's account in the platform's own object store."""
        return f"{self._door_url}/v1/AUTH_{project.tenant_id}"

    async def create_volume(self, caller: Caller, request: NasVolumeCreate) -> NasVolumeOut:
        """A new, empty volume."""
        project_id, key = caller.project.id, caller.idempotency_key
        now = utc_now()
        row = VolumeRow(
            id=new_id(),
            project_id=caller.project.id,
            name=request.nas_volume_name,
            description=request.description,
            tags=[],
            spec={},
            status={},
            desired="run",
            state="ACTIVE",
            created_by=caller.actor,
            created_at=now,
            updated_at=now,
        )
        async with self._database.write() as session:
            known_id = await claim(session, project_id, KIND, key)
            known = None if known_id is None else await repository.volume(session, project_id, known_id)
            if known is not None:
                return _volume_out(known, caller.project)
            session.add(row)
            remember(session, project_id, KIND, key, row.id)
            await asyncio.to_thread((self._volumes_root / row.id).mkdir, parents=True, exist_ok=True)
        return _volume_out(row, caller.project)

    async def list_volumes(self, caller: Caller) -> list[NasVolumeOut]:
        """All volumes of the project."""
        async with self._database.read() as session:
            rows = await repository.volumes(session, caller.project.id)
        return [_volume_out(row, caller.project) for row in rows]

    async def get_volume(self, caller: Caller, volume_id: str) -> NasVolumeOut:
        """One volume."""
        async with self._database.read() as session:
            row = await repository.volume(session, caller.project.id, volume_id)
        if row is None:
            raise NotFound("NAS volume", volume_id)
        return _volume_out(row, caller.project)

    async def delete_volume(self, caller: Caller, volume_id: str) -> None:
        """Remove an empty volume that nothing uses. What users have stored is never deleted along. Raises `VolumeInUse`, `VolumeMounted`."""
        async with self._database.write() as session:
            row = await repository.volume(session, caller.project.id, volume_id)
            if row is None:
                raise NotFound("NAS volume", volume_id)
            users = [user for find in self.volume_users for user in await find(session, caller.project.id, row.id)]
            if users:
                raise VolumeMounted(row.name, users)
            try:
                await asyncio.to_thread((self._volumes_root / row.id).rmdir)
            except FileNotFoundError:
                pass
            except OSError:
                raise VolumeInUse(row.name) from None
            await session.delete(row)

    async def _check_objects(self, project: Project, path: ObsPath, uri: str, must_contain: str | None) -> None:
        await self._check_access(project, path, uri, Access.READ)
        store = self._hosts.find(path, project_id=project.id)
        try:
            if must_contain is not None and await _is_object(store, path.child(must_contain)):
                return
            page = await store.list(path, prefix=path.directory_prefix, limit=1)
            if not page.objects and (must_contain is not None or not await _is_object(store, path)):
                raise StoragePathFault(f"there is nothing at {uri}")
            if must_contain is not None:
                raise FileMissing(must_contain, uri)
        except NoSuchPath as missing:
            raise StoragePathFault(f"{uri}: {missing}") from None
        except (StoreRefused, StoreUnreachable, BadStoragePath) as problem:
            raise StoragePathFault(f"{uri}: {problem}") from None

    async def _check_access(self, project: Project, path: ObsPath, uri: str, wanted: Access) -> None:
        try:
            store = self._hosts.find(path, project_id=project.id, is_write=wanted is Access.WRITE)
            if not isinstance(store, ChecksAccess):
                return
            fault = await store.access_fault(path, system_principal(project), wanted)
        except NoSuchPath as missing:
            raise StoragePathFault(f"{uri}: {missing}") from None
        except (StoreRefused, StoreUnreachable) as problem:
            raise StoragePathFault(f"{uri}: {problem}") from None
        if fault is not None:
            raise StoragePathFault(f"{uri}: {fault}")

    async def _copy_place(self, project: Project, uri: str) -> Path:
        copy_id = uri.removeprefix(COPY_SCHEME)
        place = self._copies.place(project.id, copy_id)
        if not is_id(copy_id) or not await asyncio.to_thread(place.is_dir):
            raise StoragePathFault("the platform's copy of the artifact is missing; make the model again")
        return place

    async def _volume_root(self, project: Project, path: NasPath) -> Path:
        async with self._database.read() as session:
            row = await repository.volume(session, project.id, path.storage_id) if is_id(path.storage_id) else None
        if row is None:
            raise StoragePathFault(f"there is no NAS volume '{path.storage_id}' in this project")
        return self._volumes_root / row.id


def system_principal(project: Project) -> Principal:
    """The account that instances of the project read and write objects as."""
    return Principal(
        tenant_id=project.tenant_id, user_id=project.api_user_id, project_id=project.id, is_system_account=True
    )


async def _is_object(store: ObjectStore, path: ObsPath) -> bool:
    try:
        await store.head(path)
    except NoSuchPath:
        return False
    return True


def _parse(uri: str) -> ObsPath | NasPath:
    try:
        return parse_storage_path(uri)
    except BadStoragePath as fault:
        raise StoragePathFault(str(fault)) from None


def _check_directory(root: Path, relative: str, uri: str, must_contain: str | None) -> None:
    place = root / relative
    real_root = root.resolve()
    if not place.resolve().is_relative_to(real_root):
        raise StoragePathFault(f"{uri} leads out of the volume")
    if not place.exists():
        raise StoragePathFault(f"there is nothing at {uri}")
    if must_contain is not None and not (place / must_contain).is_file():
        raise FileMissing(must_contain, uri)


def _check_output_directory(root: Path, relative: str, uri: str) -> None:
    """Outputs may go to a directory, or to a place where one can be made."""
    place = root / relative
    if not place.resolve().is_relative_to(root.resolve()):
        raise StoragePathFault(f"{uri} leads out of the volume")
    while not place.exists() and place != root:
        place = place.parent
    if not place.is_dir():
        raise StoragePathFault(f"{uri} is no directory: '{place.name}' in it is a file")


def _volume_out(row: VolumeRow, project: Project) -> NasVolumeOut:
    return NasVolumeOut(
        id=row.id,
        name=row.name,
        nas_volume_id=row.id,
        nas_volume_name=row.name,
        description=row.description,
        app_key=project.app_key,
        created_datetime=row.created_at,
        updated_datetime=row.updated_at,
    )
