"""The runner's transfers against the platform's own front door, under uvicorn as the product serves it."""

import asyncio
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from modelyard.db.engine import Database, sqlite_url
from modelyard.objectstore.access import Principal
from modelyard.objectstore.backends.local.blobs import DirectoryBlobs
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.backends.local.tables import metadata
from modelyard.runner.checkpoints import CheckpointSync
from modelyard.runner.fetch import fetch_all
from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import NO_PERMISSION, NO_SOURCE, StepFailed
from modelyard.runner.outputs import upload_output
from modelyard.runner.plan import Fetch, Main, Plan, Upload
from modelyard.runner.stop import Stop
from modelyard.runner.swift import Container, Small
from modelyard.runner.tree import scan
from modelyard.runner.upload import Destination, Sizes
from modelyard.server.doors.objects import ObjectDoor, object_routes

pytestmark = pytest.mark.slow
PRINCIPALS = {
    "owner": Principal("tenant", "owner"),
    "system": Principal("tenant", "api-user", is_system_account=True),
    "stranger": Principal("other", "stranger"),
}


async def authorize(token: str | None) -> Principal | None:
    return PRINCIPALS.get(token or "")


class ListeningDoor(ObjectDoor):
    """Remembers what it was asked for."""

    heard: list[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.heard.append(f"{scope['method']} {scope['path']}")
        await super().__call__(scope, receive, send)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests so far."""
    requests: list[str] = []
    monkeypatch.setattr(ListeningDoor, "heard", requests, raising=False)
    return requests


@pytest.fixture
def door(tmp_path: Path, heard: list[str]) -> Iterator[str]:
    """The address of a container behind the door."""
    database = Database(sqlite_url(tmp_path / "index.db"))
    routes = object_routes(ListeningDoor(LocalStore(database, DirectoryBlobs(tmp_path / "blobs")), authorize))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="warning", lifespan="off"))

    async def serve() -> None:
        async with database.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        try:
            await server.serve(sockets=[listener])
        finally:
            await database.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/AUTH_tenant/box"
    assert httpx.put(url, headers={"X-Auth-Token": "owner"}, timeout=30).status_code == 201
    yield url
    server.should_exit = True
    thread.join(timeout=20)


def send(url: str, source: Path, prefix: str, token: str = "system", sizes: Sizes | None = None) -> str:
    upload = Upload(source=str(source), label=f"obs://box/{prefix}", container_url=url, prefix=prefix)
    return upload_output(Destination(upload, token, Journal(), 10, sizes), Journal(), Stop())


def bring(url: str, target: Path, prefix: str, token: str = "system", **options: bool) -> None:
    fetch = Fetch(target=str(target), label=f"obs://box/{prefix}", container_url=url, prefix=prefix, **options)
    plan = Plan(main=Main(("true",), {}, "/"), fetches=(fetch,), token=token, retry_seconds=10)
    fetch_all(plan, Journal(), Stop())


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_tree_goes_there_and_comes_back(door, tmp_path) -> None:
    source = tmp_path / "out"
    (source / "sub/empty").mkdir(parents=True)
    (source / "zero").touch()
    (source / "sub/한글 #?%&+.bin").write_bytes(os.urandom(5_000_000))
    for number in range(300):
        (source / f"sub/{number}").write_text(str(number))
    send(door, source, "a/model")
    bring(door, tmp_path / "in", "a/model")
    assert tree(tmp_path / "in") == tree(source)
    assert (tmp_path / "in/sub/empty").is_dir()
    bring(door, tmp_path / "one", "a/model/sub/7")
    assert tree(tmp_path / "one") == {"7": b"7"}


def test_small_files_come_together(door, heard, tmp_path) -> None:
    """A large object among them looks small in the listing, and comes by itself; so does what is too large to share an answer."""
    owner = {"X-Auth-Token": "owner"}
    source = tmp_path / "out"
    (source / "한글").mkdir(parents=True)
    for number in range(250):
        (source / f"한글/{number}").write_bytes(os.urandom(number + 1))
    (source / "zero").touch()
    (source / "big").write_bytes(os.urandom(1_000_000))
    send(door, source, "data")
    for number in (1, 2):
        httpx.put(f"{door}/pieces/{number}", content=str(number) * 10, headers=owner).raise_for_status()
    manifest = [{"path": f"/box/pieces/{number}"} for number in (1, 2)]
    url = f"{door}/data/large?multipart-manifest=put"
    httpx.put(url, content=json.dumps(manifest), headers=owner).raise_for_status()
    (source / "large").write_text("1" * 10 + "2" * 10)
    heard.clear()
    bring(door, tmp_path / "in", "data")
    assert tree(tmp_path / "in") == tree(source)
    singles = {request for request in heard if request.startswith("GET /v1/AUTH_tenant/box/")}
    assert singles == {f"GET /v1/AUTH_tenant/box/data/{name}" for name in ("zero", "big", "large")}
    assert 3 <= heard.count("POST /v1/AUTH_tenant/box") <= 4
    assert (tmp_path / "in/한글/7").stat().st_mtime == pytest.approx(time.time(), abs=600)


def test_what_does_not_arrive_whole_is_fetched_again(door, heard, tmp_path, monkeypatch) -> None:
    source = tmp_path / "out"
    source.mkdir()
    for number in range(20):
        (source / str(number)).write_text(str(number))
    send(door, source, "data")
    read = Container.read_small

    def damaged(self: Container, names: Sequence[str]) -> list[Small]:
        first, second, *others = read(self, names)
        return [first._replace(content=memoryview(b"?")), second._replace(name="never asked for"), *others]

    monkeypatch.setattr(Container, "read_small", damaged)
    heard.clear()
    bring(door, tmp_path / "in", "data")
    assert tree(tmp_path / "in") == tree(source)
    assert len([request for request in heard if request.startswith("GET /v1/AUTH_tenant/box/data/")]) == 2


def test_small_outputs_go_together(door, heard, tmp_path) -> None:
    source = tmp_path / "out"
    (source / "한글").mkdir(parents=True)
    for number in range(250):
        (source / f"한글/{number}").write_bytes(os.urandom(number))
    (source / "large").write_bytes(os.urandom(300_000))
    send(door, source, "model")
    assert [request for request in heard if request.startswith("PUT")][1:] == ["PUT /v1/AUTH_tenant/box/model/large"]
    assert heard.count("POST /v1/AUTH_tenant/box") == 3

    heard.clear()
    for name in ("한글/7", "한글/200"):
        (source / name).write_bytes(b"changed")
    send(door, source, "model")
    assert not [request for request in heard if request.startswith("PUT")]
    assert heard.count("POST /v1/AUTH_tenant/box") == 2
    bring(door, tmp_path / "in", "model")
    assert tree(tmp_path / "in") == tree(source)


def test_small_outputs_that_arrive_damaged_go_alone(door, heard, tmp_path, monkeypatch) -> None:
    source = tmp_path / "out"
    source.mkdir()
    for number in range(150):
        (source / f"{number:03}").write_text(str(number))
    write = Container.write_small

    def damaged(self: Container, objects: Mapping[str, tuple[str, bytes]], stop: Stop) -> None:
        spoiled = {name: (etag, b"?") for name, (etag, _) in objects.items() if name == "m/007"}
        write(self, {**objects, **spoiled}, stop)

    monkeypatch.setattr(Container, "write_small", damaged)
    send(door, source, "m")
    assert len([request for request in heard if request.startswith("PUT")]) == 1 + 100
    bring(door, tmp_path / "in", "m")
    assert tree(tmp_path / "in") == tree(source)


def test_a_file_in_motion_is_left_out_of_what_goes_together(door, tmp_path) -> None:
    source = tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_text(name)
    destination = Destination(
        Upload(str(source), "obs://box/m", container_url=door, prefix="m"), "system", Journal(), 10
    )
    destination.known_checksums(Stop())
    (batch,) = destination.batches(scan(str(source)).files)
    (source / "b").write_text("!")
    os.utime(source / "b", (1, 1))
    (source / "c").unlink()
    assert destination.store_together(batch, {}, Stop()) == {"a": hashlib.md5(b"a").hexdigest()}
    bring(door, tmp_path / "in", "m")
    assert tree(tmp_path / "in") == {"a": b"a"}


def test_a_checkpoint_of_many_small_files_is_whole_at_every_point(door, heard, tmp_path, monkeypatch) -> None:
    source = tmp_path / "ck"
    source.mkdir()
    upload = Upload(source=str(source), label="obs://box/ck", container_url=door, prefix="ck", sync_seconds=60)

    def write(version: int) -> None:
        for number in range(120):
            (source / f"{number:03}").write_text(f"{version} of {number}")
        (source / "same-1").write_text(f"{version}")
        (source / "same-2").write_text(f"{version}")

    def keep() -> None:
        CheckpointSync(Destination(upload, "system", Journal(), 10), 60, Journal()).finish(Stop())

    def resumed(name: str) -> dict[str, bytes]:
        bring(door, tmp_path / name, "ck", is_checkpoint=True)
        return tree(tmp_path / name)

    write(1)
    keep()
    first = tree(source)
    assert resumed("first") == first
    write(2)
    second = tree(source)
    put, is_published = Container.write_small, False

    def ends(self: Container, objects: Mapping[str, tuple[str, bytes]], stop: Stop) -> None:
        is_staged = any("/.modelyard-checkpoint/" in name for name in objects)
        if "ck/110" in objects or (not is_published and len(objects) > 1 and not is_staged):
            raise StepFailed("the end", NO_PERMISSION)
        put(self, objects, stop)

    monkeypatch.setattr(Container, "write_small", ends)
    with pytest.raises(StepFailed, match="the end"):
        keep()
    # The manifest speaks of the second, of which nothing or a part has its names.
    assert resumed("staged") == second
    is_published = True
    with pytest.raises(StepFailed, match="the end"):
        keep()
    assert resumed("half") == second
    monkeypatch.setattr(Container, "write_small", put)
    heard.clear()
    keep()
    assert resumed("second") == second
    copies = [request for request in heard if request.startswith("PUT")]
    assert len(copies) <= 2  # the manifest, and the newest file, which goes alone
    listing = httpx.get(door, params={"prefix": "ck/"}, headers={"X-Auth-Token": "system"}).text
    assert "/.modelyard-checkpoint/" not in listing


def test_segments_come_back_as_one_file(door, tmp_path) -> None:
    source = tmp_path / "out"
    source.mkdir()
    content = os.urandom(2_500_000)
    sizes = Sizes(compare=1000, large=2_000_000, segment=1_000_000)
    for piece in (b"x" * 2_300_000, content, content):
        (source / "huge").write_bytes(piece)
        send(door, source, "m", sizes=sizes)
    bring(door, tmp_path / "in", "m")
    assert tree(tmp_path / "in") == {"huge": content}
    bring(door, tmp_path / "all", "")
    assert tree(tmp_path / "all") == {"m/huge": content}
    listing = httpx.get(door, params={"prefix": ".segments/"}, headers={"X-Auth-Token": "system"}).text.split()
    assert len(listing) == 3


def test_large_objects_of_the_official_client_come_back(door, tmp_path) -> None:
    """Segments below the object's own name and a manifest without a slash at its end."""
    owner = {"X-Auth-Token": "owner"}
    for number in (1, 2, 3):
        httpx.put(f"{door}/data/big.bin/00{number}", content=str(number) * 1000, headers=owner).raise_for_status()
    manifest = {**owner, "X-Object-Manifest": "box/data/big.bin"}
    httpx.put(f"{door}/data/big.bin", content=b"", headers=manifest).raise_for_status()
    httpx.put(f"{door}/data/small", content=b"s", headers=owner).raise_for_status()
    bring(door, tmp_path / "in", "data")
    assert {name: hashlib.md5(content).hexdigest() for name, content in tree(tmp_path / "in").items()} == {
        "big.bin": hashlib.md5(b"1" * 1000 + b"2" * 1000 + b"3" * 1000).hexdigest(),
        "small": hashlib.md5(b"s").hexdigest(),
    }


def test_refusals_are_told_in_the_doors_words(door, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("1")
    with pytest.raises(StepFailed) as read:
        bring(door, tmp_path / "in", "x", token="stranger")
    assert read.value.exit_code == NO_PERMISSION
    assert "The read permission is missing for obs://box/x (403). The store says:" in read.value.message
    with pytest.raises(StepFailed) as written:
        send(door, tmp_path / "out", "x", token="stranger")
    assert "The write permission is missing" in written.value.message
    with pytest.raises(StepFailed) as unknown:
        bring(door, tmp_path / "in", "x", token="nobody")
    assert "(401)" in unknown.value.message
    with pytest.raises(StepFailed) as missing:
        bring(door + "-other", tmp_path / "in", "x", token="owner")
    assert missing.value.exit_code == NO_SOURCE
    with pytest.raises(StepFailed, match="has no objects"):
        bring(door, tmp_path / "in", "x")


def test_checkpoints_are_kept_in_step(door, tmp_path) -> None:
    source = tmp_path / "ck"
    source.mkdir()
    upload = Upload(source=str(source), label="obs://box/ck", container_url=door, prefix="ck", sync_seconds=0.2)
    sync = CheckpointSync(Destination(upload, "system", Journal(), 10), 0.2, Journal())
    sync.start()
    (source / "cp-1").write_text("one")
    deadline = time.monotonic() + 20
    while httpx.get(f"{door}/ck/cp-1", headers={"X-Auth-Token": "system"}).text != "one":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (source / "cp-2").write_text("two")
    sync.finish(Stop())
    bring(door, tmp_path / "in", "ck")
    assert tree(tmp_path / "in") == {"cp-1": b"one", "cp-2": b"two"}
