"""Source snapshots: what is kept, found again, held, and given up; from object stores and volumes."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from modelyard.db.engine import Database
from modelyard.db.migrate import upgrade
from modelyard.kit.clock import utc_now
from modelyard.objectstore.backends.local.blobs import open_blobs
from modelyard.objectstore.backends.local.model import ContainerChange
from modelyard.objectstore.backends.local.port import LocalObjects
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.hosts import StoreHosts
from modelyard.objectstore.paths import parse_obs_path
from modelyard.resources.projects.model import Caller, Project, TokenKind
from modelyard.resources.snapshots.errors import NoSnapshot, SnapshotFault
from modelyard.resources.snapshots.service import Snapshots, SnapshotSettings
from modelyard.resources.storages.errors import StoragePathFault
from modelyard.resources.storages.schemas import NasVolumeCreate
from modelyard.resources.storages.service import Storages

PROJECT = Project("p1", "one", "app", "t1", "u1", "s1")
OTHER = Project("p2", "two", "other", "t2", "u2", "s2")
URI = "obs://store/v1/AUTH_t1/c/source"


class World:
    """Snapshots over a real store, and short words for what tests do with them."""

    def __init__(self, database: Database, root: Path, **settings) -> None:
        self.database = database
        self.root = root / "snapshots"
        self.objects = LocalStore(database, open_blobs(str(root / "objects")))
        self.port = LocalObjects(self.objects)
        self.now = utc_now()
        hosts = StoreHosts(self.port, frozenset({"store"}))
        self.storages = Storages(database, hosts, door_url="http://door", volumes_root=root / "nas")
        self.snapshots = Snapshots(
            database, self.storages, self.root, SnapshotSettings(**settings), clock=lambda: self.now
        )

    async def put(self, name: str, content: bytes, uri: str = URI) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield content

        await self.port.put(parse_obs_path(uri).child(name), pieces())

    async def hold(self, snapshot_id: str, key: str, project_id: str = "p1") -> bool:
        async with self.database.write() as session:
            return await self.snapshots.hold(session, project_id, snapshot_id, key)

    async def release(self, key: str) -> None:
        async with self.database.write() as session:
            gone = await self.snapshots.release(session, key)
        await self.snapshots.discard(gone)

    def kept(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.root).as_posix().partition("/")[2]: path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file()
        }


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    await upgrade(made)
    yield made
    await made.close()


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> World:
    made = World(database, tmp_path, size_bytes=100_000, file_count=50)
    await made.objects.put_container("AUTH_t1", "c", ContainerChange())
    return made


async def test_a_source_is_kept_once_and_goes_with_its_last_user(world: World) -> None:
    await world.put("train.py", b"print()")
    await world.put("lib/ü #%.py", b"")
    await world.put("requirements.txt", b"numpy")
    first = await world.snapshots.take(PROJECT, URI)
    assert world.kept() == {"train.py": b"print()", "lib/ü #%.py": b"", "requirements.txt": b"numpy"}
    assert (first.file_count, first.size_bytes, first.source_uri) == (3, 12, URI)
    assert first.requirements_digest is not None
    assert all(path.stat().st_mode & 0o222 == 0 for path in Path(first.directory).rglob("*") if path.is_file())
    assert (await world.snapshots.take(PROJECT, URI)).id == first.id
    assert await world.hold(first.id, "training-1")
    assert await world.hold(first.id, "training-1")
    assert await world.hold(first.id, "training-2")
    await world.release("training-1")
    assert (await world.snapshots.find(PROJECT, first.id, must_contain="train.py")).digest == first.digest
    await world.release("training-2")
    assert world.kept() == {}
    assert not await world.hold(first.id, "training-3")
    with pytest.raises(SnapshotFault, match="goes with the last training that used it"):
        await world.snapshots.find(PROJECT, first.id)


async def test_another_content_is_another_snapshot_and_the_same_is_the_same(world: World) -> None:
    await world.put("train.py", b"one")
    first = await world.snapshots.take(PROJECT, URI)
    await world.put("train.py", b"two")
    second = await world.snapshots.take(PROJECT, URI)
    assert first.id != second.id
    assert first.digest != second.digest
    await world.put("train.py", b"one", URI + "-copy")
    elsewhere = await world.snapshots.take(PROJECT, URI + "-copy")
    assert elsewhere.id == first.id  # content-addressed


async def test_other_projects_can_neither_find_nor_hold_it(world: World) -> None:
    await world.put("train.py", b"one")
    kept = await world.snapshots.take(PROJECT, URI)
    with pytest.raises(SnapshotFault):
        await world.snapshots.find(OTHER, kept.id)
    with pytest.raises(SnapshotFault):
        await world.snapshots.find(PROJECT, "../../etc")
    with pytest.raises(SnapshotFault, match=r"no 'other\.py' in the source snapshot"):
        await world.snapshots.find(PROJECT, kept.id, must_contain="other.py")
    assert not await world.hold(kept.id, "training", project_id="p2")
    with pytest.raises(NoSnapshot, match="permission"):
        await world.snapshots.take(OTHER, URI)  # not theirs to read


async def test_what_is_too_large_or_too_many_is_not_kept(world: World) -> None:
    with pytest.raises(NoSnapshot, match="there are no files"):
        await world.snapshots.take(PROJECT, URI)
    await world.put("big", b"x" * 200_000)
    with pytest.raises(NoSnapshot, match=r"0\.2 MiB, and up to"):
        await world.snapshots.take(PROJECT, URI)
    await asyncio.gather(*(world.put(str(number), b"", URI + "-many") for number in range(51)))
    with pytest.raises(NoSnapshot, match="more than 50 files"):
        await world.snapshots.take(PROJECT, URI + "-many")
    assert list(world.root.glob("*")) == []


async def test_the_sweep_takes_what_nobody_came_to_use(world: World, tmp_path: Path) -> None:
    await world.put("train.py", b"one")
    kept = await world.snapshots.take(PROJECT, URI)
    await world.put("train.py", b"two")
    used = await world.snapshots.take(PROJECT, URI)
    await world.hold(used.id, "training")
    (world.root / ".half").mkdir()
    assert await world.snapshots.sweep() == 0
    world.now += timedelta(hours=2)
    assert await world.snapshots.sweep() == 2
    assert not Path(kept.directory).exists()
    assert [path.name for path in world.root.iterdir()] == [used.id]


async def test_a_volume_is_read_without_following_links(world: World) -> None:
    caller = Caller(PROJECT, "me", TokenKind.ACCESS)
    volume = await world.storages.create_volume(caller, NasVolumeCreate(nas_volume_name="v"))
    place = world.root.parent / "nas" / volume.nas_volume_id / "algo"
    (place / "lib").mkdir(parents=True)
    (place / "train.py").write_bytes(b"print()")
    (place / "lib/a.py").write_bytes(b"a")
    os.mkfifo(place / "pipe")
    uri = f"nas://{volume.nas_volume_id}:/algo"
    kept = await world.snapshots.take(PROJECT, uri)
    assert world.kept() == {"train.py": b"print()", "lib/a.py": b"a"}
    assert (await world.snapshots.take(PROJECT, uri)).id == kept.id
    (place / "lib/passwd").symlink_to("/etc/passwd")
    with pytest.raises(NoSnapshot, match="a link"):
        await world.snapshots.take(PROJECT, uri)
    (place.parent / "out").symlink_to("/etc")
    with pytest.raises(NoSnapshot):
        await world.snapshots.take(PROJECT, f"nas://{volume.nas_volume_id}:/out")
    with pytest.raises(NoSnapshot, match="no NAS volume"):
        await world.snapshots.take(OTHER, uri)


async def test_a_listing_tells_files_and_how_far_it_goes(world: World) -> None:
    """The segments that the upload of a large object leaves at the root of its container are no files of their own."""
    for name in ("model/a", "model/b/c", ".segments/model/large/0", "model/b/.segments/kept"):
        await world.put(name, b"x", "obs://store/v1/AUTH_t1/c")

    async def listed(path: str, limit: int) -> tuple[list[str], bool]:
        files, is_whole = await (await world.storages.reader(PROJECT, f"obs://store/v1/AUTH_t1/{path}")).list(limit)
        return [file.name for file in files], is_whole

    assert await listed("c", 10) == (["model/a", "model/b/.segments/kept", "model/b/c"], True)
    assert await listed("c/model", 3) == (["a", "b/.segments/kept", "b/c"], True)
    assert await listed("c/model", 2) == (["a", "b/.segments/kept"], False)
    assert await listed("c/model/a", 2) == (["a"], True)
    with pytest.raises(StoragePathFault):
        await listed("c/none", 2)


async def test_the_platform_may_keep_none(database: Database, tmp_path: Path) -> None:
    with pytest.raises(NoSnapshot, match="set to keep no sources"):
        await World(database, tmp_path, is_enabled=False).snapshots.take(PROJECT, URI)
