"""The home directory of an installation: where everything lies, who holds it, and its secrets.

One platform at a time holds a home (a lock that the kernel drops with the process). Secrets are made at the first start; those that people must be
able to see again (`modelyard credentials`) are kept encrypted with the home's own key, readable by the owner alone.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from cryptography.fernet import Fernet, InvalidToken

MAX_HOME_BYTES = 107 - len("/compute/run/0123456789ab/jupyter.sock")
"""A socket's address has at most 107 bytes on Linux; this one lies deepest."""


class HomeUnusable(Exception):
    """The home can't be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below one directory."""

    root: Path

    @property
    def config_file(self) -> Path:
        """Settings, if an admin has written any."""
        return self.root / "config.toml"

    @property
    def database_file(self) -> Path:
        """The SQLite database, unless the settings name another one."""
        return self.root / "modelyard.db"

    @property
    def run(self) -> Path:
        """Sockets, locks, process files."""
        return self.root / "run"

    def server_socket(self, index: int = 0) -> Path:
        """Where a server listens; the gateway is its only caller."""
        return self.run / f"server-{index}.sock"

    def guard_socket(self, index: int = 0) -> Path:
        """Where a server answers the gateway who may pass."""
        return self.run / f"guard-{index}.sock"

    def server_state(self, index: int = 0) -> Path:
        """What a server says of itself while it serves."""
        return self.run / f"server-{index}.json"

    @property
    def waiting_room(self) -> Path:
        """Sockets and board of the activator."""
        return self.run / "wait"

    @property
    def secrets(self) -> Path:
        """Keys."""
        return self.root / "secrets"

    @property
    def certificates(self) -> Path:
        """The platform's CA and server certificate."""
        return self.root / "certificates"

    @property
    def gateway(self) -> Path:
        """The gateway's configuration and logs."""
        return self.root / "gateway"

    @property
    def objects(self) -> Path:
        """Blobs of the object store."""
        return self.root / "objects"

    @property
    def volumes(self) -> Path:
        """NAS volumes."""
        return self.root / "nas"

    @property
    def compute(self) -> Path:
        """Instances and their output."""
        return self.root / "compute"

    @property
    def environments(self) -> Path:
        """Built images."""
        return self.root / "environments"

    @property
    def snapshots(self) -> Path:
        """The sources that trainings ran with."""
        return self.root / "snapshots"

    @property
    def tensorboard(self) -> Path:
        """Event files of trainings."""
        return self.root / "tensorboard"

    @property
    def log_store(self) -> Path:
        """The searchable logs."""
        return self.root / "logstore"

    @property
    def log_file(self) -> Path:
        """The server's own log."""
        return self.root / "logs" / "server.log"

    @property
    def images_file(self) -> Path:
        """The admin's additions to the catalogue of images."""
        return self.root / "images.yaml"

    @property
    def flavors_file(self) -> Path:
        """The admin's additions to the catalogue of instance types."""
        return self.root / "flavors.yaml"

    @property
    def door_hosts_file(self) -> Path:
        """Every host and port that the front door has ever had: paths that name an old one stay good."""
        return self.root / "door-hosts.json"

    def prepare(self) -> None:
        """Make the directories. Raises `HomeUnusable`."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (self.run, self.secrets, self.log_file.parent):
                directory.mkdir(mode=0o700, exist_ok=True)
            probe = self.run / ".write-probe"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise HomeUnusable(
                f"the home directory {self.root} can't be written ({error.strerror or error}); "
                "choose another one with --home, or free space and rights there"
            ) from None
        length = len(os.fsencode(self.root))
        if length > MAX_HOME_BYTES:
            raise HomeUnusable(
                f"the path of the home directory {self.root} has {length} bytes; sockets in it can be reached with at most "
                f"{MAX_HOME_BYTES}: choose a shorter one with --home"
            )


def lock_home(home: Home, name: str) -> IO[str] | None:
    """Take the lock of this name; the file that holds it, or None if another process has it. Closing the file gives it back."""
    file = (home.run / f"{name}.lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()
    return file


def remember_door_hosts(home: Home, hosts: frozenset[str]) -> frozenset[str]:
    """Add the front door's names to those that it had before; all of them."""
    try:
        former = frozenset(str(host) for host in cast(list[Any], json.loads(home.door_hosts_file.read_text())))
    except (OSError, ValueError):
        former = frozenset[str]()
    if not hosts <= former:
        write_private(home.door_hosts_file, json.dumps(sorted(hosts | former)).encode())
    return hosts | former


def secret_key(home: Home, name: str, length: int = 32) -> bytes:
    """A random key that stays the same for this home, also when several servers ask for it first at the same moment."""
    path = home.secrets / f"{name}.key"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    candidate = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_private(candidate, secrets.token_bytes(length))
    try:
        os.link(candidate, path)  # the first one wins; the others read what it has written
    except FileExistsError:
        pass
    finally:
        candidate.unlink()
    return path.read_bytes()


def seal(home: Home, name: str, content: Mapping[str, Any]) -> None:
    """Keep values that must be shown again, encrypted."""
    box = Fernet(_fernet_key(home))
    write_private(home.secrets / f"{name}.sealed", box.encrypt(json.dumps(content).encode()))


def unseal(home: Home, name: str) -> dict[str, Any] | None:
    """What was sealed under this name, or None. Raises `HomeUnusable` when it can't be read."""
    path = home.secrets / f"{name}.sealed"
    try:
        sealed = path.read_bytes()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise HomeUnusable(f"{path} can't be read; use the account that started the platform") from None
    try:
        return cast(dict[str, Any], json.loads(Fernet(_fernet_key(home)).decrypt(sealed)))
    except InvalidToken:
        raise HomeUnusable(f"{path} does not fit the key beside it; was one of them restored from elsewhere?") from None


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 in one step, durably."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _fernet_key(home: Home) -> bytes:
    return base64.urlsafe_b64encode(secret_key(home, "seal"))
