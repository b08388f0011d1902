"""A real OpenStack Swift beside our own object store, both on loopback, both asked the same things.

Swift comes from the package index, pinned with hashes in requirements/swift.lock, into an environment of its own below the user's
cache directory. It runs as four processes (proxy, account, container, object) with one replica on one directory, tempauth, and tokens
that need no memcached. Ours runs in this process under uvicorn, as the product serves it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from modelyard.db.engine import Database, sqlite_url
from modelyard.objectstore.access import Principal
from modelyard.objectstore.backends.local.blobs import DirectoryBlobs
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.backends.local.tables import metadata
from modelyard.server.doors.objects import ObjectDoor, object_routes
from modelyard.server.doors.objects_request import DoorSettings
from modelyard.testing.ports import free_port

http.client._MAXHEADERS = 300  # type: ignore[attr-defined]  # 90 metadata headers and the usual ones come back

MAX_FILE_BYTES = 6 * 1024 * 1024
PEER_PIECES = ("account", "container", "object", "proxy")

# Runs one of Swift's servers with its constants below our own directory instead of /etc.
_LAUNCH = """
import sys
import swift.common.utils as utils
utils.set_swift_dir(sys.argv[1])
from swift.common import constraints, storage_policy
constraints.reload_constraints()
storage_policy.reload_storage_policies()
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(sys.argv[2], sys.argv[3] + '-server'))
"""

_RINGS = """
import sys
from swift.common.ring import RingBuilder
for kind, port in zip(('account', 'container', 'object'), sys.argv[2:]):
    builder = RingBuilder(2, 1, 1)
    builder.add_dev({'region': 1, 'zone': 1, 'ip': '127.0.0.1', 'port': int(port), 'device': 'd1', 'weight': 1,
                     'replication_ip': '127.0.0.1', 'replication_port': int(port)})
    builder.rebalance()
    builder.get_ring().save(f'{sys.argv[1]}/{kind}.ring.gz')
"""


@dataclass(frozen=True)
class Answer:
    """What a store said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Door:
    """One of the two stores: where it listens, the account's path and the tokens of its users."""

    port: int
    account: str
    tokens: Mapping[str, str]

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | list[bytes] | None = None,
        user: str = "owner",
    ) -> Answer:
        """One request. `path` is below the account and goes out as it stands; a list as body is sent chunked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        target = path if path.startswith(("//", "/info", "/healthcheck")) else f"/v1/{self.account}{path}"
        target = target.removeprefix("/") if target.startswith("//") else target
        sent = {name: value.replace("{account}", self.account) for name, value in (headers or {}).items()}
        if user:
            sent.setdefault("X-Auth-Token", self.tokens[user])
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value.encode())
            if isinstance(body, list):
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders()
                for piece in body:
                    connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
                connection.send(b"0\r\n\r\n")
            else:
                if body is not None and not any(name.lower() == "content-length" for name in sent):
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
            response = connection.getresponse()
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )
        finally:
            connection.close()


@pytest.fixture(scope="session")
def swift(locked_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A running OpenStack Swift."""
    swift_python = locked_python("swift")
    home = tmp_path_factory.mktemp("swift")
    ports = {piece: free_port() for piece in PEER_PIECES}
    _configure_swift(home, ports)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    storage_ports = [str(ports[piece]) for piece in PEER_PIECES[:3]]
    subprocess.run([swift_python, "-c", _RINGS, home, *storage_ports], check=True, env=environment)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for piece in PEER_PIECES:
            with (home / f"{piece}.log").open("wb") as log:
                command = [swift_python, "-c", _LAUNCH, home, home / f"{piece}.conf", piece]
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        tokens = {user: _swift_token(ports["proxy"], user, home) for user in ("owner", "system", "stranger")}
        door = Door(ports["proxy"], "AUTH_tenant", tokens)
        _await_ready(door)
        yield door
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Our own store behind its door, under uvicorn in a thread of this process."""
    home = tmp_path_factory.mktemp("ours")
    principals = {
        "owner": Principal("tenant", "owner"),
        "system": Principal("tenant", "system", is_system_account=True),
        "stranger": Principal("other", "stranger"),
    }

    async def authorize(token: str | None) -> Principal | None:
        return principals.get((token or "").removeprefix("token-of-"))

    database = Database(sqlite_url(home / "index.db"))
    door = ObjectDoor(
        LocalStore(database, DirectoryBlobs(home / "blobs")),
        authorize,
        settings=DoorSettings(max_object_bytes=MAX_FILE_BYTES, implicit_system_grants=False),
    )
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Starlette(routes=object_routes(door)), log_level="warning", lifespan="off")
    server = uvicorn.Server(config)

    async def serve() -> None:
        async with database.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        try:
            await server.serve(sockets=[listener])
        finally:
            await database.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    try:
        yield Door(listener.getsockname()[1], "AUTH_tenant", {user: f"token-of-{user}" for user in principals})
    finally:
        server.should_exit = True
        thread.join(timeout=20)


Step = tuple[Any, ...]


@dataclass
class Both:
    """Plays the same requests to Swift and to ours."""

    swift: Door
    ours: Door

    def play(self, container: str, steps: list[Step]) -> None:
        """Play the steps on a new container. A step is (method, path[, headers[, body[, user]]]); `/C` in it is the container.

        A list as body is sent chunked. Fails with every difference that was seen.
        """
        found: list[str] = []
        for door in (self.swift, self.ours):
            assert door.ask("PUT", f"/{container}").status == 201
        for number, step in enumerate(steps, 1):
            method, path, headers, body, user = (*step, *(None, None, None, "owner")[len(step) - 1 :])
            path = path.replace("/C", f"/{container}").replace("=C", f"={container}")
            headers = {name: _placed(value, container) for name, value in (headers or {}).items()}
            body = body.replace(b"/C/", f"/{container}/".encode()) if isinstance(body, bytes) else body
            theirs, mine = (door.ask(method, path, headers, body, user) for door in (self.swift, self.ours))
            where = f"step {number}: {method} {path[:120]} {str(headers)[:200]} as {user or 'nobody'}"
            found += [f"{where}\n    {difference}" for difference in _differences(method, theirs, mine)]
        assert not found, "\n" + "\n".join(found)


@pytest.fixture(scope="session")
def both(swift: Door, ours: Door) -> Both:
    """Swift and ours."""
    return Both(swift, ours)


_SAME = re.compile(
    r"content-(type|range|disposition|encoding|language)|etag|accept-ranges|cache-control|expires|allow|vary|www-authenticate"
    r"|x-(object|container|account-meta)-.*|x-static-large-object|x-delete-at|x-robots-tag"
    r"|x-copied-from(-account)?"
)
_PRESENT = (
    "x-account-container-count",
    "last-modified",
    "x-timestamp",
    "x-manifest-etag",
    "x-copied-from-last-modified",
    "x-trans-id",
)


def _placed(value: str, container: str) -> str:
    return re.sub(r"(^|/)C/", rf"\g<1>{container}/", value)


def _differences(method: str, theirs: Answer, mine: Answer) -> list[str]:
    if theirs.status != mine.status:
        return [f"status {theirs.status} there, {mine.status} here ({mine.body[:200]!r})"]
    found: list[str] = []
    if theirs.status not in (401, 403):  # ours says which permission is missing
        there, here = _plain_body(theirs), _plain_body(mine)
        if there != here:
            found.append(f"body {there!r} there, {here!r} here")
    if method != "HEAD" and mine.headers.get("content-length", str(len(mine.body))) != str(len(mine.body)):
        found.append(f"content-length {mine.headers['content-length']} for {len(mine.body)} bytes")
    names = {name for name in (*theirs.headers, *mine.headers) if _SAME.fullmatch(name)}
    if theirs.status in (401, 403):
        names.discard("content-type")
    for name in sorted(names):
        there, here = _plain_header(name, theirs), _plain_header(name, mine)
        if there != here:
            found.append(f"{name}: {there!r} there, {here!r} here")
    if method == "HEAD" and theirs.status < 300:
        there, here = theirs.headers.get("content-length"), mine.headers.get("content-length")
        if there != here and "x-manifest-etag" not in theirs.headers:
            found.append(f"content-length: {there} there, {here} here")
    for name in _PRESENT:
        if theirs.status < 300 and (name in theirs.headers) != (name in mine.headers):
            found.append(f"{name} is {theirs.headers.get(name)!r} there, {mine.headers.get(name)!r} here")
    return found


def _plain_header(name: str, answer: Answer) -> str | None:
    value = answer.headers.get(name)
    if value is None:
        return None
    if name == "allow":
        return ", ".join(sorted(value.split(", ")))
    if name == "etag" and "x-static-large-object" in answer.headers and "json" in answer.headers["content-type"]:
        return "of the manifest, which tells when the segments were written"
    if name == "x-delete-at":
        return "later" if int(value) > time.time() else "past"
    if name in ("x-container-bytes-used",) and int(value) > 200:
        return "many"  # a manifest's own length depends on how long the containers' names are
    return re.sub(r"boundary=\S+", "boundary=…", value)


def _plain_body(answer: Answer) -> Any:
    kind = answer.headers.get("content-type", "")
    if kind.startswith("application/json") and answer.body.startswith((b"[", b"{")):
        return _plain_json(json.loads(answer.body))
    text = answer.body
    if "xml" in kind:
        text = re.sub(rb"<storage_policy>.*?</storage_policy>", b"", text)
        return re.sub(rb"<last_modified>[0-9T:.-]{26}</last_modified>", b"<last_modified/>", text)
    if kind.startswith("multipart/byteranges"):
        return text.replace(kind.partition("boundary=")[2].encode(), b"boundary")
    return text


def _plain_json(value: Any) -> Any:
    if not isinstance(value, list):
        # Swift looks at segments concurrently, so it tells their faults in any order.
        return {**value, "Errors": sorted(value["Errors"])} if "Errors" in value else value
    plain: list[Any] = []
    for entry in value:
        if isinstance(entry, dict):
            entry = {key: item for key, item in entry.items() if key != "storage_policy"}
            if "last_modified" in entry:
                assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}", entry["last_modified"])
                entry["last_modified"] = "some time"
            if "slo_etag" in entry:
                entry["hash"] = "of the manifest"
        plain.append(entry)
    return plain


def _configure_swift(home: Path, ports: Mapping[str, int]) -> None:
    (home / "devices" / "d1").mkdir(parents=True)
    (home / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = peer\n"
        "[storage-policy:0]\nname = gold\ndefault = yes\n"
        f"[swift-constraints]\nmax_file_size = {MAX_FILE_BYTES}\n"
    )
    shared = f"bind_ip = 127.0.0.1\nworkers = 0\nswift_dir = {home}\nuser = {_user_name()}\nlog_level = WARNING\n"
    storage = (
        f"{shared}devices = {home}/devices\nmount_check = false\nfallocate_reserve = 0\ndisable_fallocate = true\n"
    )
    for piece in PEER_PIECES[:3]:
        (home / f"{piece}.conf").write_text(
            f"[DEFAULT]\nbind_port = {ports[piece]}\n{storage}"
            f"[pipeline:main]\npipeline = {piece}-server\n[app:{piece}-server]\nuse = egg:swift#{piece}\n"
        )
    filters = "catch_errors gatekeeper listing_formats bulk s3api tempauth copy slo dlo"
    uses = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in filters.split() if name != "tempauth")
    (home / "proxy.conf").write_text(
        f"[DEFAULT]\nbind_port = {ports['proxy']}\n{shared}"
        f"[pipeline:main]\npipeline = {filters} proxy-server\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\nallow_account_management = true\n"
        f"{uses}[filter:tempauth]\nuse = egg:swift#tempauth\nfernet_key_one = {'A' * 43}=\nactive_fernet_key_id = one\n"
        "user_tenant_owner = secret .admin\nuser_tenant_system = secret\nuser_other_stranger = secret .admin\n"
    )


def _swift_token(port: int, user: str, home: Path) -> str:
    account = "other" if user == "stranger" else "tenant"
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(
                "GET", "/auth/v1.0", headers={"X-Auth-User": f"{account}:{user}", "X-Auth-Key": "secret"}
            )
            response = connection.getresponse()
            token = response.getheader("X-Auth-Token")
            if token:
                return token
        except OSError:
            pass
        finally:
            connection.close()
        if time.monotonic() > deadline:
            pytest.fail("Swift's proxy did not start:\n" + (home / "proxy.log").read_text()[-2000:])
        time.sleep(0.1)


def _await_ready(door: Door) -> None:
    deadline = time.monotonic() + 60
    while door.ask("PUT", "/ready").status not in (201, 202) or door.ask("PUT", "/ready/o", {}, b"").status != 201:
        if time.monotonic() > deadline:
            pytest.fail("Swift did not become ready")
        time.sleep(0.2)
    door.ask("DELETE", "/ready/o")
    door.ask("DELETE", "/ready")


def _user_name() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name
