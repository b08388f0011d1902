"""Uploads and downloads: names, parallel work, checks, segments, broken connections."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import httpx
import pytest
from small_platform import QUICK, SmallPlatform

from modelyard.sdk.api import Api
from modelyard.sdk.blocking import BlockingDoor, run_to_end
from modelyard.sdk.client import AsyncClient, Client
from modelyard.sdk.connection import Connection
from modelyard.sdk.errors import Conflict, ConnectionFailed, ModelyardError, NotFound, TransferFailed
from modelyard.sdk.groups.storage import AsyncStorage
from modelyard.sdk.places import Places
from modelyard.sdk.transfers import Progress


def make_tree(root: Path) -> dict[str, bytes]:
    tree = {f"dir {number % 7}/ü{number}.bin": os.urandom(number * 1500) for number in range(60)}
    tree["top.txt"] = b""
    for name, content in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return tree


def read_tree(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_a_directory_goes_there_and_back(client: Client, platform: SmallPlatform, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "here")
    seen: list[Progress] = []
    client.storage.upload(tmp_path / "here", "demo/some/tree", progress=seen.append)
    assert platform.objects["demo"] == {f"some/tree/{name}": content for name, content in tree.items()}
    size = sum(map(len, tree.values()))
    assert seen[-1] == Progress(61, 61, size, size)
    assert [item.done_bytes for item in seen] == sorted(item.done_bytes for item in seen)
    platform.objects["demo"]["some/tree2/neighbour"] = b"no"
    client.storage.download("demo/some/tree", tmp_path / "back")
    assert read_tree(tmp_path / "back") == tree
    assert [item.subdir for item in client.storage.list("demo/some", recursive=False)] == ["some/tree/", "some/tree2/"]


async def test_the_asynchronous_client_transfers_too(
    connection: Connection, platform: SmallPlatform, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "here")
    async with AsyncClient(connection) as client:
        await client.storage.upload(tmp_path / "here", "demo/tree")
        await client.storage.download("demo/tree", tmp_path / "back")
        assert read_tree(tmp_path / "back") == tree
        assert await client.storage.delete("demo", recursive=True) == len(tree)
    assert platform.objects == {}


def test_where_a_single_file_goes(client: Client, platform: SmallPlatform, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"1,2")
    base = "obs://" + platform.url.removeprefix("http://") + "/v1/AUTH_tenant"
    assert client.storage.upload(tmp_path / "a.csv", "demo") == f"{base}/demo/a.csv"
    assert client.storage.upload(tmp_path / "a.csv", "demo/x/") == f"{base}/demo/x/a.csv"
    assert client.storage.upload(tmp_path / "a.csv", f"{base}/demo/y.csv") == f"{base}/demo/y.csv"
    assert sorted(platform.objects["demo"]) == ["a.csv", "x/a.csv", "y.csv"]
    assert client.storage.read("demo/y.csv") == b"1,2"
    assert client.storage.download("demo/y.csv", tmp_path / "z.csv") == [tmp_path / "z.csv"]
    assert client.storage.download("demo/x/a.csv", f"{tmp_path}/new/") == [tmp_path / "new" / "a.csv"]


def test_an_unlisted_place_is_an_error(client: Client, tmp_path: Path) -> None:
    client.storage.create_container("demo")
    with pytest.raises(NotFound, match="no objects"):
        client.storage.download("demo/nothing", tmp_path)
    with pytest.raises(NotFound, match="there is no object"):
        client.storage.delete("demo/nothing")
    with pytest.raises(FileNotFoundError):
        client.storage.upload(tmp_path / "nothing", "demo")
    (tmp_path / "file").write_text("x")
    client.storage.upload(tmp_path / "file", "demo/d/file")
    with pytest.raises(Conflict):
        client.storage.delete("demo")
    with pytest.raises(NotFound, match="use recursive"):
        client.storage.delete("demo/d")
    assert [item.name for item in client.storage.containers()] == ["demo"]


def test_a_large_file_goes_in_segments(connection: Connection, platform: SmallPlatform, tmp_path: Path) -> None:
    content = os.urandom(2_500_000)
    (tmp_path / "big").write_bytes(content)
    door = BlockingDoor()
    api = Api(connection, door)
    storage = AsyncStorage(api, Places(api), segment_bytes=1_000_000)
    seen: list[Progress] = []
    run_to_end(storage.upload(tmp_path / "big", "demo/big", progress=seen.append))
    assert len(platform.objects["demo_segments"]) == 3
    assert platform.objects["demo"]["big"] == content
    assert [item.done_bytes for item in seen] == sorted(item.done_bytes for item in seen)
    run_to_end(storage.download("demo/big", tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content
    run_to_end(storage.delete("demo/big"))
    assert platform.objects == {"demo": {}, "demo_segments": {}}
    door.close()


def test_damage_is_noticed(client: Client, platform: SmallPlatform, tmp_path: Path) -> None:
    platform.objects["demo"] = {"file": b"content"}
    platform.corrupt.add("demo/file")
    with pytest.raises(TransferFailed, match="damaged"):
        client.storage.download("demo/file", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tree/../../escape", "tree//absolute", "tree/a\x00b"])
def test_no_object_leaves_the_target(client: Client, platform: SmallPlatform, tmp_path: Path, name: str) -> None:
    platform.objects["demo"] = {name: b"x"}
    target = tmp_path / "in" / "here"
    with pytest.raises(TransferFailed, match="can't be a file below"):
        client.storage.download("demo/tree", target)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_transfer_begins_again(connection: Connection, platform: SmallPlatform, tmp_path: Path) -> None:
    class Breaking(httpx.BaseTransport):
        breaks = 3

        def __init__(self) -> None:
            self.network = httpx.HTTPTransport()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = self.network.handle_request(request)
            if request.url.path.endswith("/big") and self.breaks:
                self.breaks -= 1
                response.read()
                raise httpx.ReadError("connection reset", request=request)
            return response

    (tmp_path / "big").write_bytes(os.urandom(900_000))
    transport = Breaking()
    client = Client(connection, patience=QUICK, transport=transport)
    client.storage.upload(tmp_path / "big", "demo/big")
    assert transport.breaks == 0
    transport.breaks = 2
    client.storage.download("demo/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()
    transport.breaks = 100
    with pytest.raises((TransferFailed, ConnectionFailed)):
        client.storage.download("demo/big", tmp_path / "never")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["back", "big"]


def test_one_failure_ends_the_others(client: Client, platform: SmallPlatform, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "here")
    client.storage.upload(tmp_path / "here", "demo/tree")
    platform.corrupt.add(f"demo/tree/{sorted(tree)[30]}")
    with pytest.raises(ModelyardError, match="damaged"):
        client.storage.download("demo/tree", tmp_path / "back")
    assert not list((tmp_path / "back").rglob("*.part"))


def test_what_is_no_file_is_left_out_with_a_warning(
    client: Client, platform: SmallPlatform, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "a").write_bytes(b"a")
    os.mkfifo(here / "pipe")
    (here / "nowhere").symlink_to("missing")
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(str(here / "socket"))
        client.storage.upload(here, "demo/tree")
        with pytest.raises(TransferFailed, match="socket is a socket and has no content"):
            client.storage.upload(here / "socket", "demo/one")
    assert list(platform.objects["demo"]) == ["tree/a"]
    told = sorted(str(each.message).rpartition("/")[2] for each in recwarn)
    assert told == [
        "nowhere is a link that leads nowhere: it is not uploaded",
        "pipe is a named pipe: it is not uploaded",
        "socket is a socket: it is not uploaded",
    ]
