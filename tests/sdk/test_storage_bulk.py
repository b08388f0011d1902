"""Downloads of many small files against the real door of the object store."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from time import monotonic

import httpx
import pytest
from small_platform import APP_KEY, QUICK, TENANT, TOKEN
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from modelyard.db.engine import Database, sqlite_url
from modelyard.objectstore.access import Principal
from modelyard.objectstore.backends.local.blobs import DirectoryBlobs
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.backends.local.tables import metadata
from modelyard.sdk.client import AsyncClient
from modelyard.sdk.connection import Connection
from modelyard.sdk.errors import NotFound, TransferFailed
from modelyard.sdk.transfers import Progress
from modelyard.server.doors.objects import ObjectDoor, object_routes

Spoil = Callable[[httpx.Response], Awaitable[httpx.Response]]


class Network(httpx.AsyncBaseTransport):
    """Brings requests to the door and remembers them; `spoil` changes the answers to questions for several objects."""

    def __init__(self, app: Starlette) -> None:
        self._door = httpx.ASGITransport(app=app)
        self.heard: list[str] = []
        self.spoil: Spoil | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._door.handle_async_request(request)
        is_bulk = "bulk-read" in request.url.params
        if "/objects/" in request.url.path or is_bulk:
            self.heard.append("several" if is_bulk else request.url.path.rpartition("/")[2])
        return await self.spoil(answer) if is_bulk and self.spoil is not None else answer


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    database = Database(sqlite_url(tmp_path / "index.db"))
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)

    async def authorize(token: str | None) -> Principal | None:
        return Principal(TENANT, "owner") if token == TOKEN else None

    async def account(_: Request) -> JSONResponse:
        found = {"tenantId": TENANT, "apiUserId": "api-user", "objectStoreUrl": f"http://door/v1/AUTH_{TENANT}"}
        header = {"isSuccessful": True, "resultCode": 0, "resultMessage": "SUCCESS"}
        return JSONResponse({"header": header, "storageAccount": found})

    door = ObjectDoor(LocalStore(database, DirectoryBlobs(tmp_path / "blobs")), authorize)
    routes = [Route(f"/v1.0/appkeys/{APP_KEY}/storage-account", account), *object_routes(door)]
    yield Network(Starlette(routes=routes))
    await database.close()


@pytest.fixture
async def client(network: Network) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(Connection("http://door", APP_KEY, TOKEN), patience=QUICK, transport=network) as client:
        yield client


@pytest.fixture
async def tree(client: AsyncClient, network: Network, tmp_path: Path) -> dict[str, bytes]:
    """250 small files, one of them empty, and one that is not small; uploaded."""
    tree = {f"dir {number % 7}/한글 {number}.bin": os.urandom(number) for number in range(250)}
    tree["large"] = os.urandom(300_000)
    for name, content in tree.items():
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_bytes(content)
    await client.storage.upload(tmp_path / "here", "demo/objects")
    network.heard.clear()
    return tree


def read_tree(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


async def test_small_files_come_together_and_only_once(
    client: AsyncClient, network: Network, tree: dict[str, bytes], tmp_path: Path
) -> None:
    back = tmp_path / "back"
    seen: list[Progress] = []
    files = await client.storage.download("demo/objects", back, progress=seen.append)
    assert read_tree(back) == tree
    assert sorted(files) == sorted(back / name for name in tree)
    assert sorted(network.heard) == ["large", "several", "several", "several"]
    size = sum(map(len, tree.values()))
    assert seen[-1] == Progress(251, 251, size, size)

    network.heard.clear()
    changed, gone = (back / name for name in sorted(tree)[100:102])
    changed.write_bytes(b"x" * changed.stat().st_size)
    gone.unlink()
    await client.storage.download("demo/objects", back)
    assert read_tree(back) == tree
    # What is listed as empty may be a large object; it is asked for by whatever batch it is in.
    assert "large" not in network.heard
    assert len(network.heard) <= 3


async def test_what_does_not_come_well_is_fetched_by_itself(
    client: AsyncClient, network: Network, tree: dict[str, bytes], tmp_path: Path
) -> None:
    async def damaged(answer: httpx.Response) -> httpx.Response:
        content = await answer.aread()
        end = content.index(b"\n")
        size = json.loads(content[:end])["size"]
        return httpx.Response(200, content=content[: end + 1] + b"\0" * size + content[end + 1 + size :])

    async def cut(answer: httpx.Response) -> httpx.Response:
        return httpx.Response(200, content=(await answer.aread())[:-1])

    async def refused(answer: httpx.Response) -> httpx.Response:
        await answer.aread()
        return httpx.Response(403)

    for number, (spoil, singles) in enumerate(((damaged, 4), (cut, 4), (refused, 251))):
        network.heard.clear()
        network.spoil = spoil
        await client.storage.download("demo/objects", tmp_path / str(number))
        assert read_tree(tmp_path / str(number)) == tree
        assert len([name for name in network.heard if name != "several"]) <= singles


async def test_an_object_that_is_deleted_meanwhile_is_told(
    client: AsyncClient, network: Network, tree: dict[str, bytes], tmp_path: Path
) -> None:
    name = sorted(tree)[30]

    async def without(answer: httpx.Response) -> httpx.Response:
        content, told = await answer.aread(), f'"objects/{name}"'.encode()
        if told in content:
            await client.storage.delete(f"demo/objects/{name}")
        return httpx.Response(200, content=content.replace(told, b'"another"'))

    network.spoil = without
    with pytest.raises(NotFound, match="404"):
        await client.storage.download("demo/objects", tmp_path / "back")


async def test_a_directory_in_the_place_of_a_file_is_told(
    client: AsyncClient, tree: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("large", sorted(tree)[30]):
        back = tmp_path / f"back-{len(name)}"
        (back / name).mkdir(parents=True)
        with pytest.raises(TransferFailed, match="is a directory here and a file in the store"):
            await client.storage.download("demo/objects", back)
        assert (back / name).is_dir()
        deadline = monotonic() + 20
        while list(back.rglob("*.part")):  # of files that a thread was just at
            assert monotonic() < deadline
            await asyncio.sleep(0.02)
