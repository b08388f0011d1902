"""The door's own manners: what Swift has no word for. That it speaks as Swift does is tested in tests/conformance/swift."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import text
from starlette.applications import Starlette

from modelyard.db.engine import Database
from modelyard.objectstore.access import Access, Principal
from modelyard.objectstore.backends.local.blobs import RemoteStoreBlobs
from modelyard.objectstore.backends.local.port import LocalObjects
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.paths import parse_obs_path
from modelyard.objectstore.port import NoSuchPath
from modelyard.server.doors.objects import ObjectDoor, object_routes
from modelyard.server.doors.objects_request import DoorSettings

BlobFiles = Callable[[], list[Path]]
AS_SYSTEM, AS_STRANGER, AS_READER = ({"X-Auth-Token": who} for who in ("system", "stranger", "reader"))


@pytest.fixture(autouse=True)
async def container(client: httpx.AsyncClient) -> None:
    assert (await client.put("/c")).status_code == 201


class TestBulkRead:
    async def test_gives_what_is_small_and_there(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/c")).headers["X-Bulk-Read"] == "200"
        for name, content in (("a", b"1\n2"), ("b/한글", b"x" * 1000), ("empty", b"")):
            await client.put(f"/c/{name}", content=content)
        await client.put("/c/dlo", headers={"X-Object-Manifest": "c/b"})
        names = ["empty", "b/한글", "gone", "dlo", "a", "a"]
        answer = await client.post("/c?bulk-read", json=names, headers=AS_SYSTEM)
        assert answer.status_code == 200
        found: list[tuple[str, bytes]] = []
        rest = answer.content
        while rest:
            line, _, rest = rest.partition(b"\n")
            head = json.loads(line)
            content, rest = rest[: head["size"]], rest[head["size"] :]
            assert head["etag"] == hashlib.md5(content).hexdigest()
            assert head["modified_at"] == pytest.approx(1_700_000_000, rel=1)
            found.append((head["name"], content))
        assert found == [("empty", b""), ("b/한글", b"x" * 1000), ("a", b"1\n2")]

    async def test_is_for_readers_alone(self, client: httpx.AsyncClient) -> None:
        await client.put("/c/o", content=b"x")
        assert (await client.post("/c?bulk-read", json=["o"], headers=AS_STRANGER)).status_code == 403
        assert (await client.post("/nowhere?bulk-read", json=["o"], headers=AS_STRANGER)).status_code == 403
        assert (await client.post("/nowhere?bulk-read", json=["o"])).status_code == 404
        await client.post("/c", headers={"X-Container-Read": "tenant:reader"})
        assert (await client.post("/c?bulk-read", json=["o"], headers=AS_SYSTEM)).status_code == 403
        assert (await client.post("/c?bulk-read", json=["o"], headers=AS_READER)).status_code == 200

    async def test_a_wrong_question_is_told(self, client: httpx.AsyncClient) -> None:
        for body in (b"", b"{}", b"[1]", b'{"a": []}', b"[" * 10_000):
            assert (await client.post("/c?bulk-read", content=body)).status_code == 400, body
        assert (await client.post("/c?bulk-read", json=[str(number) for number in range(201)])).status_code == 413
        assert (await client.post("/c?bulk-read", content=b" " * 2_000_000)).status_code == 413


def frame(name: str, content: bytes, /, **changes: object) -> bytes:
    head = {"name": name, "size": len(content), "etag": hashlib.md5(content).hexdigest()} | changes
    return json.dumps(head).encode() + b"\n" + content


class TestBulkWrite:
    async def test_objects_come_together_and_replace_what_was_there(
        self, client: httpx.AsyncClient, blob_files: BlobFiles
    ) -> None:
        told = (await client.head("/c")).headers
        assert (told["x-bulk-write"], told["x-bulk-write-bytes"]) == ("200", str(8 << 20))
        await client.put("/c/b/old.json", content=b"old", headers={"X-Object-Meta-Age": "old"})
        await client.put("/c/copy", headers={"X-Copy-From": "c/b/old.json", "Content-Length": "0"})
        contents = {"b/old.json": b"new", "empty": b"", "b/한글\n.bin": b"{}\n" * 1000, "a": os.urandom(300_000)}
        body = b"".join(frame(name, content) for name, content in contents.items())
        answer = await client.post("/c?bulk-write", content=body, headers=AS_SYSTEM)
        assert answer.status_code == 201, answer.text
        assert {item["name"]: item["etag"] for item in answer.json()} == {
            name: hashlib.md5(content).hexdigest() for name, content in contents.items()
        }
        for name, content in contents.items():
            got = await client.get(f"/c/{quote(name)}")
            assert (got.content, got.headers["etag"]) == (content, hashlib.md5(content).hexdigest())
        replaced = (await client.head("/c/b/old.json")).headers
        assert (replaced["content-type"], replaced.get("x-object-meta-age")) == ("application/json", None)
        assert (await client.get("/c/copy")).content == b"old"
        told = (await client.head("/c")).headers
        assert told["x-container-object-count"] == "5"
        assert told["x-container-bytes-used"] == str(3 + sum(map(len, contents.values())))
        await client.delete("/c/copy")
        assert len(blob_files()) == 3  # one for each content that is not empty; the old one is gone

    async def test_all_or_nothing(self, client: httpx.AsyncClient, blob_files: BlobFiles) -> None:
        good = frame("good", b"x")
        for status, words, body in (
            (400, "At byte", b"good"),
            (400, "At byte", good + b"{}\n"),
            (400, f"At byte {len(good)}", good + frame("o", b"x", size=2)),
            (400, "At byte", frame("o", b"x", size=-1)),
            (400, "At byte", frame("", b"x")),
            (400, "At byte", frame("o", b"x", name=7)),
            (400, "At byte", b'{"name": "\\ud800", "size": 0, "etag": ""}\n'),
            (400, "'good' comes twice", good + good),
            (400, "longer than 1024", good + frame("n" * 1025, b"x")),
            (412, "NULL", good + frame("a\0b", b"x")),
            (413, "At most 200", b"".join(frame(str(number), b"") for number in range(201))),
            (413, "", b" " * (8 << 20) + b" "),
            (
                422,
                "The content of 'o' has the MD5 9dd4e461268c8034f5c8564e155c67a6, not wrong",
                good + frame("o", b"x", etag="wrong"),
            ),
        ):
            answer = await client.post("/c?bulk-write", content=body)
            assert (answer.status_code, words in answer.text) == (status, True), (answer.text, words)
        assert (await client.get("/c")).text == ""
        assert blob_files() == []
        assert (await client.post("/c?bulk-write", content=b"")).json() == []

    async def test_is_for_writers_alone(self, client: httpx.AsyncClient) -> None:
        body = frame("o", b"x")
        assert (await client.post("/c?bulk-write", content=body, headers=AS_STRANGER)).status_code == 403
        assert (await client.post("/c?bulk-write", content=body, headers=AS_READER)).status_code == 403
        assert (await client.post("/nowhere?bulk-write", content=body, headers=AS_STRANGER)).status_code == 403
        assert (await client.post("/nowhere?bulk-write", content=body)).status_code == 404
        await client.post("/c", headers={"X-Container-Write": "tenant:somebody"})
        assert (await client.post("/c?bulk-write", content=body, headers=AS_SYSTEM)).status_code == 403
        assert (await client.get("/c")).text == ""


class TestSystemAccount:
    async def test_may_read_and_write_until_a_list_is_set(self, client: httpx.AsyncClient) -> None:
        assert (await client.put("/c/o", content=b"x", headers=AS_SYSTEM)).status_code == 201
        assert (await client.get("/c/o", headers=AS_SYSTEM)).content == b"x"
        assert (await client.get("/c", headers=AS_SYSTEM)).text == "o\n"
        await client.post("/c", headers={"X-Container-Read": "tenant:somebody"})
        assert (await client.get("/c/o", headers=AS_SYSTEM)).status_code == 403
        assert (await client.put("/c/o", content=b"x", headers=AS_SYSTEM)).status_code == 403

    async def test_removing_a_list_brings_nothing_back(self, client: httpx.AsyncClient) -> None:
        await client.post("/c", headers={"X-Container-Read": "tenant:api-user"})
        await client.post("/c", headers={"X-Remove-Container-Read": "x"})
        assert (await client.get("/c", headers=AS_SYSTEM)).status_code == 403

    async def test_refusal_says_which_permission_is_missing(self, client: httpx.AsyncClient) -> None:
        await client.post("/c", headers={"X-Container-Read": "tenant:api-user"})
        answer = await client.put("/c/o", content=b"x", headers=AS_SYSTEM)
        assert answer.status_code == 403
        assert answer.text == (
            "The write permission on container 'c' of AUTH_tenant is missing for account 'tenant:api-user'. "
            "The container's owner can grant it by adding 'tenant:api-user' to X-Container-Write."
        )
        await client.post("/c", headers={"X-Container-Write": "tenant:api-user"})
        assert (await client.put("/c/o", content=b"x", headers=AS_SYSTEM)).status_code == 201

    async def test_has_no_say_over_containers(self, client: httpx.AsyncClient) -> None:
        assert (await client.put("/new", headers=AS_SYSTEM)).status_code == 403
        assert (await client.delete("/c", headers=AS_SYSTEM)).status_code == 403
        assert (await client.post("/c", headers=AS_SYSTEM)).status_code == 403
        assert (await client.get("", headers=AS_SYSTEM)).status_code == 403
        assert "Only the owner" in (await client.get("", headers=AS_SYSTEM)).text

    async def test_of_another_tenant_gets_nothing(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/c", headers=AS_STRANGER)).status_code == 403


class TestScopes:
    async def test_reading_token_can_only_read(self, client: httpx.AsyncClient) -> None:
        await client.put("/c/o", content=b"x")
        assert (await client.get("/c/o", headers=AS_READER)).status_code == 200
        for answer in (
            await client.put("/c/o", content=b"y", headers=AS_READER),
            await client.delete("/c/o", headers=AS_READER),
            await client.put("/d", headers=AS_READER),
            await client.post("/c", headers=AS_READER),
        ):
            assert answer.status_code == 403
            assert "objects:write" in answer.text


class TestBodies:
    async def test_names_are_limited_by_bytes(self, client: httpx.AsyncClient) -> None:
        assert (await client.put("/c/" + "한" * 342, content=b"")).status_code == 400
        assert (await client.put("/c/" + "한" * 341, content=b"")).status_code == 201
        assert (await client.put("/" + "한" * 86)).status_code == 400

    async def test_body_that_grows_too_large_leaves_nothing(
        self, client: httpx.AsyncClient, blob_files: BlobFiles
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100_000

        answer = await client.put("/c/o", content=pieces())
        assert answer.status_code == 413
        assert (await client.get("/c/o")).status_code == 404
        assert blob_files() == []

    async def test_wrong_tag_leaves_the_old_object(self, client: httpx.AsyncClient, blob_files: BlobFiles) -> None:
        await client.put("/c/o", content=b"old")
        assert (await client.put("/c/o", content=b"new", headers={"ETag": "0" * 32})).status_code == 422
        assert (await client.get("/c/o")).content == b"old"
        assert len(blob_files()) == 1

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    async def test_full_index_answers_507_and_leaves_nothing(
        self, client: httpx.AsyncClient, database: Database, blob_files: BlobFiles
    ) -> None:
        async with database.write() as session:  # the same error as a full disk: SQLITE_FULL
            pages = (await session.execute(text("PRAGMA page_count"))).scalar_one()
            await session.execute(text(f"PRAGMA max_page_count = {pages}"))
        statuses = [
            (await client.put(f"/c/{number}{'n' * 900}", content=b"x", headers={"Content-Type": "a/" + "b" * 2000}))
            for number in range(20)
        ]
        refused = [answer.status_code for answer in statuses if answer.status_code != 201]
        assert refused
        assert set(refused) == {507}
        assert len(blob_files()) == 20 - len(refused)

    async def test_container_that_goes_during_an_upload(self, client: httpx.AsyncClient, blob_files: BlobFiles) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"x"
            assert (await client.delete("/c")).status_code == 204
            yield b"y"

        assert (await client.put("/c/o", content=pieces())).status_code == 404
        assert blob_files() == []

    async def test_nobody_sees_half_an_object(self, client: httpx.AsyncClient) -> None:
        versions = [bytes([number]) * 700_000 for number in range(4)]
        await client.put("/c/o", content=versions[0])
        is_over = False

        async def read() -> None:
            while not is_over:
                answer = await client.get("/c/o")
                assert answer.status_code == 200
                assert answer.content in versions

        async def write() -> None:
            nonlocal is_over
            rng = random.Random(5)
            for _ in range(25):
                await client.put("/c/o", content=rng.choice(versions))
            is_over = True

        await asyncio.gather(write(), read(), read())

    async def test_manifest_faults_that_swift_has_no_answer_for(self, client: httpx.AsyncClient) -> None:
        answer = await client.put("/c/slo?multipart-manifest=put", content=b'[1, {"x": 1}, {"path": "/c/none"}]')
        assert answer.status_code == 400
        assert answer.text == (
            "Index 0: not a JSON object\nIndex 1: expected keys to include one of 'data' or 'path'\n"
        )

    async def test_manifests_that_name_each_other_end(self, client: httpx.AsyncClient) -> None:
        await client.put("/c/a", content=b"x")
        await client.put("/c/b?multipart-manifest=put", content=b'[{"path": "/c/a"}]')
        for number in range(12):
            inner = "/c/b" if number == 0 else f"/c/n{number - 1}"
            answer = await client.put(
                f"/c/n{number}?multipart-manifest=put", content=f'[{{"path": "{inner}"}}]'.encode()
            )
            if answer.status_code != 201:
                break
        assert answer.status_code == 400
        assert number >= 8
        await client.put("/c/loop", content=b"", headers={"X-Object-Manifest": "c/loop"})
        assert (await client.get("/c/loop")).status_code == 200

    async def test_metadata_of_a_container_is_limited_in_all(self, client: httpx.AsyncClient) -> None:
        for start in (0, 50):
            headers = {f"X-Container-Meta-{number}": "x" for number in range(start, start + 50)}
            answer = await client.post("/c", headers=headers)
        assert (answer.status_code, answer.text) == (400, "Too many metadata items; max 90")
        assert "x-container-meta-60" not in (await client.head("/c")).headers

    async def test_information(self, client: httpx.AsyncClient) -> None:
        told = (await client.get("http://door/info", headers={"X-Auth-Token": ""})).json()
        assert told["swift"]["max_file_size"] == 1_000_000


class TestPort:
    async def test_verbs(self, client: httpx.AsyncClient, store: LocalStore) -> None:
        port = LocalObjects(store)
        root = parse_obs_path("obs://door/v1/AUTH_tenant/c")

        async def content() -> AsyncIterator[bytes]:
            yield b"hello "
            yield b"world"

        written = await port.put(root.child("d/o"), content(), size=11, content_type="text/plain")
        assert (written.size, written.etag) == (11, "5eb63bbbe01eeed093cb22bb8f5acdc3")
        assert (await client.get("/c/d/o")).text == "hello world"
        assert b"".join([piece async for piece in port.get(root.child("d/o"))]) == b"hello world"
        assert b"".join([piece async for piece in port.get(root.child("d/o"), offset=6, length=3)]) == b"wor"
        await client.put("/c/top", content=b"1")
        page = await port.list(root, delimiter="/", limit=1)
        assert (list(page.prefixes), list(page.objects), page.marker) == (["d/"], [], "d/")
        page = await port.list(root, delimiter="/", limit=1, marker="d/")
        assert ([stat.name for stat in page.objects], page.marker) == (["top"], None)
        assert [stat.name for stat in (await port.list(root.child("d"))).objects] == ["d/o"]
        await port.delete(root.child("top"))
        await port.delete(root.child("top"))
        for missing in (root.child("none"), parse_obs_path("obs://door/v1/AUTH_tenant/none/o")):
            with pytest.raises(NoSuchPath):
                await port.head(missing)
            with pytest.raises(NoSuchPath):
                await anext(port.get(missing))

    async def test_large_objects_are_whole(self, client: httpx.AsyncClient, store: LocalStore) -> None:
        for number in range(3):
            await client.put(f"/c/big/{number}", content=bytes([65 + number]) * 5)
        await client.put("/c/big", content=b"", headers={"X-Object-Manifest": "c/big/"})
        path = parse_obs_path("obs://door/v1/AUTH_tenant/c/big")
        assert (await LocalObjects(store).head(path)).size == 15
        pieces = LocalObjects(store).get(path, offset=4, length=7)
        assert b"".join([piece async for piece in pieces]) == b"ABBBBBC"

    async def test_access_fault(self, client: httpx.AsyncClient, store: LocalStore) -> None:
        port, path = LocalObjects(store), parse_obs_path("obs://door/v1/AUTH_tenant/c/o")
        system = Principal("tenant", "api-user", is_system_account=True)
        assert await port.access_fault(path, system, Access.WRITE) is None
        await client.post("/c", headers={"X-Container-Read": "tenant:api-user"})
        assert await port.access_fault(path, system, Access.READ) is None
        assert "The write permission" in str(await port.access_fault(path, system, Access.WRITE))


async def test_blobs_in_a_store_with_a_url(database: Database, tmp_path: Path) -> None:
    from obstore.store import LocalStore as ObstoreDirectory

    place = tmp_path / "remote"
    place.mkdir()
    blobs = RemoteStoreBlobs(ObstoreDirectory(place))

    async def authorize(token: str | None) -> Principal | None:
        return Principal("tenant", "owner")

    door = ObjectDoor(LocalStore(database, blobs), authorize, settings=DoorSettings())
    transport = httpx.ASGITransport(app=Starlette(routes=object_routes(door)))
    large = random.Random(2).randbytes(20_000_000)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://door/v1/AUTH_tenant", headers={"X-Auth-Token": "x"}
    ) as client:
        for name, data in (("small", b"abc"), ("large", large)):
            assert (await client.put(f"/c/{name}", content=data)).status_code == 201
            assert (await client.get(f"/c/{name}")).content == data
        part = await client.get("/c/large", headers={"Range": "bytes=9000000-9000009"})
        assert part.content == large[9_000_000:9_000_010]
        assert (await client.put("/c/large", content=b"y", headers={"ETag": "0" * 32})).status_code == 422
        assert len([path for path in place.rglob("*") if path.is_file()]) == 2
        await client.delete("/c/large")
        await client.delete("/c/small")
        assert [path for path in place.rglob("*") if path.is_file()] == []
        assert [key async for key in blobs.list_older(0)] == []
