"""The own store on both databases, and its door."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from modelyard.db.engine import Database
from modelyard.objectstore.access import Principal
from modelyard.objectstore.backends.local.blobs import DirectoryBlobs
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.server.doors.objects import ObjectDoor, object_routes
from modelyard.server.doors.objects_request import DoorSettings

PRINCIPALS = {
    "owner": Principal("tenant", "owner"),
    "system": Principal("tenant", "api-user", project_id="project", is_system_account=True),
    "stranger": Principal("other", "stranger"),
    "reader": Principal("tenant", "owner", scopes=frozenset({"objects:read"})),
}


@dataclass
class Now:
    """A clock that stands until it is moved; each look is 10 µs later, as times of the store never repeat."""

    time: datetime = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(microseconds=10)
        return self.time

    def pass_seconds(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path / "blobs")


@pytest.fixture
def store(database: Database, blobs: DirectoryBlobs, now: Now) -> LocalStore:
    return LocalStore(database, blobs, clock=now)


async def authorize(token: str | None) -> Principal | None:
    return PRINCIPALS.get(token or "")


@pytest.fixture
def door(store: LocalStore) -> ObjectDoor:
    return ObjectDoor(store, authorize, settings=DoorSettings(max_object_bytes=1_000_000))


@pytest.fixture
async def client(door: ObjectDoor) -> AsyncIterator[httpx.AsyncClient]:
    """The owner's client, below the account."""
    app = Starlette(routes=object_routes(door))
    transport = httpx.ASGITransport(app=app)
    headers = {"X-Auth-Token": "owner"}
    async with httpx.AsyncClient(transport=transport, base_url="http://door/v1/AUTH_tenant", headers=headers) as client:
        yield client


@pytest.fixture
def blob_files(blobs: DirectoryBlobs) -> Callable[[], list[Path]]:
    """All files that the store has on disk."""
    return lambda: sorted(path for path in blobs.root.rglob("*") if path.is_file())
