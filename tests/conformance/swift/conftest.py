"""A real OpenStack Swift beside our own object store, both on loopback, both asked the same things.

Swift comes from the package index, pinned with hashes in requirements/swift.lock, into an environment of its own below the user's
cache directory. It runs as four processes (proxy, account, container, object) with one replica on one directory, tempauth, and tokens
that need no memcached. Ours runs in this process under uvicorn, as the product serves it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

ROOT = Path(__file__).resolve().parents[3]
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
    name: str = ""
    process: list[subprocess.Popen[bytes]] = field(default_factory=list)

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modelyard-tests"


@pytest.fixture(scope="session")
def swift_python() -> Path:
    """The interpreter of the environment that Swift lives in; built once per lock file."""
    lock = ROOT / "requirements" / "swift.lock"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    home = cache_directory() / f"swift-{digest}"
    python = home / "bin" / "python"
    if (home / "complete").exists():
        return python
    uv = Path(sys.executable).parent / "uv"
    subprocess.run([uv, "venv", "--clear", "-q", "-p", sys.executable, home], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--require-hashes", "-p", python, "-r", lock], check=True)
    (home / "complete").touch()
    return python


@pytest.fixture(scope="session")
def swift(swift_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A running OpenStack Swift."""
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
        door = Door(ports["proxy"], "AUTH_tenant", tokens, "swift", processes)
        _await_ready(door)
        yield door
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


def _configure_swift(home: Path, ports: Mapping[str, int]) -> None:
    (home / "devices" / "d1").mkdir(parents=True)
    (home / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = peer\n"
        "[storage-policy:0]\nname = gold\ndefault = yes\n"
        f"[swift-constraints]\nmax_file_size = {MAX_FILE_BYTES}\n"
    )
    shared = f"bind_ip = 127.0.0.1\nworkers = 0\nswift_dir = {home}\nuser = {_user_name()}\nlog_level = WARNING\n"
    storage = f"{shared}devices = {home}/devices\nmount_check = false\nfallocate_reserve = 0\ndisable_fallocate = true\n"
    for piece in PEER_PIECES[:3]:
        (home / f"{piece}.conf").write_text(
            f"[DEFAULT]\nbind_port = {ports[piece]}\n{storage}"
            f"[pipeline:main]\npipeline = {piece}-server\n[app:{piece}-server]\nuse = egg:swift#{piece}\n"
        )
    filters = "catch_errors gatekeeper listing_formats bulk tempauth copy slo dlo"
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
