"""Remote stores, seen from the port and through the front door: a real Swift in its own dialect and, by its S3 middleware, in that of S3."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from modelyard.db.engine import Database, sqlite_url
from modelyard.objectstore.access import Principal
from modelyard.objectstore.backends.local.blobs import DirectoryBlobs
from modelyard.objectstore.backends.local.port import LocalObjects
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.backends.s3.store import S3Credentials, S3Store
from modelyard.objectstore.backends.swift.keystone import SwiftCredentials
from modelyard.objectstore.backends.swift.store import SwiftStore
from modelyard.objectstore.hosts import RemoteStore, StoreHosts
from modelyard.objectstore.paths import ObsPath
from modelyard.objectstore.port import NoSuchPath, StoreRefused, StoreUnreachable
from modelyard.server.doors.objects import ObjectDoor, object_routes
from modelyard.testing.ports import free_port

pytestmark = pytest.mark.slow


def swift_store(port: int, password: str = "secret") -> SwiftStore:
    host = f"127.0.0.1:{port}"
    credentials = SwiftCredentials(f"http://{host}/auth/v1.0", "tenant:owner", password, version="v1")
    return SwiftStore(host, credentials, scheme="http")


def s3_store(port: int, password: str = "secret") -> S3Store:
    return S3Store(S3Credentials(f"http://127.0.0.1:{port}", "tenant:owner", password))


@pytest.fixture(params=["swift", "s3"])
async def remote(request: pytest.FixtureRequest, swift: Any) -> AsyncIterator[tuple[Any, ObsPath]]:
    """The store and a new container on it."""
    container = f"remote-{request.param}-{abs(hash(request.node.name)) % 10_000}"
    swift.ask("PUT", f"/{container}")
    store = swift_store(swift.port) if request.param == "swift" else s3_store(swift.port)
    yield store, ObsPath(f"127.0.0.1:{swift.port}", "v1", "tenant", container)
    if isinstance(store, SwiftStore):
        await store.close()


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def whole(found: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in found])


async def test_verbs(remote: tuple[Any, ObsPath]) -> None:
    store, root = remote
    stat = await store.put(root.child("d/한 o.txt"), pieces(b"hello ", b"world"), size=11, content_type="text/x")
    assert (stat.size, stat.etag, stat.content_type) == (11, "5eb63bbbe01eeed093cb22bb8f5acdc3", "text/x")
    assert await whole(store.get(root.child("d/한 o.txt"))) == b"hello world"
    assert await whole(store.get(root.child("d/한 o.txt"), offset=6)) == b"world"
    assert await whole(store.get(root.child("d/한 o.txt"), offset=6, length=3)) == b"wor"
    await store.put(root.child("d/e/f"), pieces(b"1"))
    await store.put(root.child("d2"), pieces(b"2"))
    assert [found.name for found in (await store.list(root)).objects] == ["d/e/f", "d/한 o.txt", "d2"]
    page = await store.list(root, prefix="d", delimiter="/")
    assert ([found.name for found in page.objects], list(page.prefixes)) == (["d2"], ["d/"])
    assert [found.name for found in (await store.list(root, prefix="", marker="d/e/f")).objects] == ["d/한 o.txt", "d2"]
    page = await store.list(root, limit=1)
    assert ([found.name for found in page.objects], page.marker) == (["d/e/f"], "d/e/f")
    await store.delete(root.child("d2"))
    await store.delete(root.child("d2"))
    with pytest.raises(NoSuchPath):
        await store.head(root.child("d2"))
    with pytest.raises(NoSuchPath):
        await whole(store.get(root.child("d2")))
    nowhere = ObsPath(root.host, "v1", "tenant", "nowhere-at-all", "x")
    with pytest.raises(NoSuchPath):
        await store.list(nowhere)
    with pytest.raises(NoSuchPath):
        await store.put(nowhere, pieces(b"x"))


async def test_s3_links_work_without_a_credential(swift: Any) -> None:
    swift.ask("PUT", "/signed")
    store, path = s3_store(swift.port), ObsPath(f"127.0.0.1:{swift.port}", "v1", "tenant", "signed", "o")
    await store.put(path, pieces(b"linked"))
    async with httpx.AsyncClient() as client:
        assert (await client.get(await store.sign(path))).content == b"linked"


async def test_wrong_credentials_and_dead_hosts_are_told(swift: Any) -> None:
    path = ObsPath(f"127.0.0.1:{swift.port}", "v1", "tenant", "c", "o")
    for store in (swift_store(swift.port, "wrong"), s3_store(swift.port, "wrong")):
        with pytest.raises(StoreRefused):
            await store.head(path)
    dead = free_port()
    with pytest.raises(StoreUnreachable):
        await swift_store(dead).head(path)


@pytest.fixture(scope="module")
def door_url(swift: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Our front door with two remote hosts allowed: one name for the Swift dialect, one for S3."""
    home = tmp_path_factory.mktemp("door")
    host = f"127.0.0.1:{swift.port}"
    listener = socket.create_server(("127.0.0.1", 0))

    async def authorize(token: str | None) -> Principal | None:
        project = {"mine": "p1", "theirs": "p2"}.get(token or "")
        return Principal("tenant", "api-user", project_id=project, is_system_account=True) if project else None

    async def serve() -> None:
        local = LocalStore(Database(sqlite_url(home / "index.db")), DirectoryBlobs(home / "blobs"))
        remotes = {
            host: RemoteStore(host, swift_store(swift.port), project_ids=frozenset({"p1"})),
            "s3.example.org": RemoteStore("s3.example.org", s3_store(swift.port), tenants=frozenset({"tenant"})),
            "archive.example.org": RemoteStore("archive.example.org", s3_store(swift.port), is_read_only=True),
        }
        hosts = StoreHosts(LocalObjects(local), frozenset({"localhost"}), remotes)
        app = Starlette(routes=object_routes(ObjectDoor(local, authorize, hosts=hosts)))
        server.append(uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")))
        await server[0].serve(sockets=[listener])

    server: list[uvicorn.Server] = []
    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/remote"
    server[0].should_exit = True
    thread.join(timeout=20)


@pytest.mark.parametrize("name", ["swift", "s3"])
async def test_through_the_front_door(swift: Any, door_url: str, name: str) -> None:
    container = f"door-{name}"
    swift.ask("PUT", f"/{container}")
    host = f"127.0.0.1:{swift.port}" if name == "swift" else "s3.example.org"
    base = f"{door_url}/{host}/v1/AUTH_tenant/{container}"
    async with httpx.AsyncClient(headers={"X-Auth-Token": "mine"}, timeout=60) as client:
        put = await client.put(
            f"{base}/d/%ED%95%9C", content=pieces(b"hello ", b"world"), headers={"Content-Type": "a/b"}
        )
        assert (put.status_code, put.headers["etag"]) == (201, "5eb63bbbe01eeed093cb22bb8f5acdc3")
        assert (await client.put(f"{base}/top", content=b"1")).status_code == 201
        found = await client.get(f"{base}/d/%ED%95%9C")
        assert (found.content, found.headers["content-type"]) == (b"hello world", "a/b")
        assert float(found.headers["x-timestamp"]) > 1e9
        part = await client.get(f"{base}/d/%ED%95%9C", headers={"Range": "bytes=6-8"})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"wor", "bytes 6-8/11")
        assert (await client.get(f"{base}/d/%ED%95%9C", headers={"Range": "bytes=60-"})).status_code == 416
        head = await client.head(f"{base}/d/%ED%95%9C")
        assert (head.status_code, head.headers["content-length"], head.headers["etag"]) == (
            200,
            "11",
            put.headers["etag"],
        )
        assert (await client.get(base)).text == "d/한\ntop\n"
        assert (await client.get(base, params={"prefix": "d/", "limit": "1000"})).text == "d/한\n"
        entries = (await client.get(base, params={"format": "json", "delimiter": "/"})).json()
        assert [entry.get("name") or entry.get("subdir") for entry in entries] == ["d/", "top"]
        not_again = await client.get(f"{base}/top", headers={"If-None-Match": "c4ca4238a0b923820dcc509a6f75849b"})
        assert not_again.status_code == 304
        assert (await client.delete(f"{base}/top")).status_code == 204
        for answer in (
            await client.get(f"{base}/top"),
            await client.head(f"{base}/top"),
            await client.delete(f"{base}/top"),
        ):
            assert answer.status_code == 404
        assert (await client.get(f"{base}-nowhere")).status_code == 404
        assert (await client.put(f"{base}-nowhere/o", content=b"x")).status_code == 404


async def test_the_admins_token_stays_here(swift: Any, door_url: str) -> None:
    swift.ask("PUT", "/secrets")
    async with httpx.AsyncClient(headers={"X-Auth-Token": "mine"}) as client:
        answer = await client.get(f"{door_url}/127.0.0.1:{swift.port}/v1/AUTH_tenant/secrets")
    assert answer.status_code == 204
    assert not any("token" in name.lower() for name in answer.headers)


async def test_many_heads_keep_no_connection(swift: Any, door_url: str) -> None:
    swift.ask("PUT", "/heads")
    swift.ask("PUT", "/heads/o", {}, b"x")
    url = f"{door_url}/127.0.0.1:{swift.port}/v1/AUTH_tenant/heads/o"
    async with httpx.AsyncClient(headers={"X-Auth-Token": "mine"}, timeout=30) as client:
        for _ in range(110):  # more than the pool of connections has
            assert (await client.head(url)).status_code == 200


async def test_refusals(swift: Any, door_url: str) -> None:
    allowed = f"{door_url}/127.0.0.1:{swift.port}/v1/AUTH_tenant"
    async with httpx.AsyncClient(headers={"X-Auth-Token": "mine"}) as client:
        assert (await client.get(f"{allowed}/c", headers={"X-Auth-Token": "rubbish"})).status_code == 401
        other_project = await client.get(f"{allowed}/c", headers={"X-Auth-Token": "theirs"})
        assert (other_project.status_code, "not allowed for this project" in other_project.text) == (403, True)
        for url in (
            f"{door_url}/evil.example.org/v1/AUTH_tenant/c/o",
            f"{door_url}/127.0.0.1:22/v1/AUTH_tenant/c/o",
            f"{door_url}/s3.example.org/v1/AUTH_other/c/o",
        ):
            answer = await client.get(url)
            assert answer.status_code == 403
            assert "not allowed" in answer.text
        read_only = await client.put(f"{door_url}/archive.example.org/v1/AUTH_tenant/c/o", content=b"x")
        assert (read_only.status_code, "only be read" in read_only.text) == (403, True)
        for trick in ("c/%2e%2e/%2e%2e/auth", "c/a%00b", "c//o", "c/a%5Cb"):
            assert (await client.get(f"{allowed}/{trick}")).status_code == 400
