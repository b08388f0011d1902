"""The data cache of a project: files that its runs have fetched, named by their content, kept for the runs that follow.

An instance may read the entries and never write them: they are mounted read-only and belong to the platform. It offers a file by passing a
descriptor of it, with the md5 and the size that it is said to have, through a socket of its supervisor; the keeper, a child of the
supervisor outside of the sandbox, copies what it reads, compares, and keeps its own copy only where that has this content. So whoever
offers, an entry is what its name says. Entries take their names after they are on the disk, so that a crash of the machine leaves none
that is damaged. When there are more bytes than the cache may hold, those go that were not used for the longest time.

    {directory}/entries/{md5, first two digits}/{md5}.{size}    mounted in the project's instances; modification time: last use
    {directory}/incoming/                                       being taken

Standard library only, light parts only: the supervisor imports this.
"""

# Plain `os` calls on purpose: pathlib costs a third of the supervisor's whole start.
# ruff: noqa: PTH101, PTH103, PTH104, PTH108, PTH120, PTH123, PTH208
from __future__ import annotations

import _socket
import os
import time

from modelyard.compute.backends.local import kernel

TYPE_CHECKING = False  # for type checkers; the module `typing` costs more than the rest of the start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypedDict

    class CachePlan(TypedDict):
        """What a supervisor needs to know: where the cache is, how large it may get, and the project's requirement layers."""

        directory: str
        limit_bytes: int
        layers: str

    class Entry(TypedDict):
        """A file in the cache."""

        path: str
        size: int
        used_at: float


ENTRIES, INCOMING = "entries", "incoming"
LAYER_IN_USE = "layer"
"""A file beside the instance's records: the name of the requirements layer that it runs with."""

_BLOCK_BYTES = 1 << 20
_IDLE_SECONDS = 0.3
_MOST_WAITING, _MOST_WAITING_BYTES = 512, 256 << 20
_NICENESS = 19
_STALE_SECONDS = 3600.0
_FULLNESS_AFTER = 0.9
_LAYER_NAME_LENGTH = 64


def open_door(path: str) -> _socket.socket | None:
    """The socket through which an instance offers files; None where its path is too long for one: then nothing is cached."""
    door = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        door.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - its directory is the instance's alone
        door.listen(8)
    except OSError:
        door.close()
        return None
    return door


def spawn_keeper(door: _socket.socket, plan: CachePlan, instance_directory: str) -> None:
    """Fork a keeper that serves the door for as long as the calling supervisor lives."""
    supervisor = os.getpid()
    if os.fork():
        return
    try:
        kernel.unblock_signals()
        kernel.set_name("my-keeper")
        kernel.die_with_parent(kernel.SIGKILL)
        # The supervisor's lock among others: what it held must end with it.
        os.closerange(3, door.fileno())
        os.closerange(door.fileno() + 1, 4096)
        if os.getppid() == supervisor:
            os.nice(_NICENESS)
            door.setblocking(True)
            Keeper(plan, instance_directory).serve(door)
    finally:
        os._exit(0)


class Keeper:
    """Serves one instance. Everything that it is told is untrusted."""

    def __init__(self, plan: CachePlan, instance_directory: str) -> None:
        self._plan = plan
        self._instance_directory = instance_directory
        self._entries = f"{plan['directory']}/{ENTRIES}"
        self._incoming = f"{plan['directory']}/{INCOMING}"
        self._waiting: list[tuple[str, str]] = []
        self._waiting_bytes = 0
        self._added_bytes = -1
        self._count = 0

    def serve(self, door: _socket.socket) -> None:
        """Answer one connection after the other, without end."""
        import socket  # noqa: PLC0415 - only keepers need it, and supervisors must start fast

        listening = socket.socket(fileno=door.detach())
        while True:
            connection, _ = listening.accept()
            try:
                self.attend(connection)
                self._name_waiting()
            except OSError:
                pass  # The disk is full, say: the run goes on without a cache.
            finally:
                connection.close()

    def attend(self, connection: _socket.socket) -> None:
        """Answer what comes over one connection until it is closed."""
        connection.settimeout(_IDLE_SECONDS)
        while True:
            try:
                message, ancillary, _, _ = connection.recvmsg(256, 256)
            except TimeoutError:
                self._name_waiting()
                continue
            descriptors = _descriptors(ancillary)
            try:
                if not message:
                    return
                answer = self._answer(message.decode("ascii", "replace").split(), descriptors)
                if answer:
                    connection.sendall(answer)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _answer(self, words: list[str], descriptors: list[int]) -> bytes:
        """What to say; nothing to what asks for no answer."""
        if words == ["finish"]:
            self._name_waiting()
            return b"finished"
        if len(words) == 2 and words[0] == "layer" and len(words[1]) == _LAYER_NAME_LENGTH and words[1].isalnum():
            self._use_layer(words[1])
            return b""
        if len(words) != 3 or not is_entry_name(words[1], words[2]):
            return b"refused"
        path = entry_path(self._entries, words[1], int(words[2]))
        if words[0] == "used":
            _touch(path)
            return b""
        if os.path.lexists(path):
            return b"known"
        is_fit = words[0] == "keep" and len(descriptors) == 1 and int(words[2]) <= self._plan["limit_bytes"]
        return b"kept" if is_fit and self._keep(descriptors[0], words[1], int(words[2]), path) else b"refused"

    def _keep(self, descriptor: int, md5: str, size: int, path: str) -> bool:
        """Copy the file, and have it named when it is what it is said to be."""
        import hashlib  # noqa: PLC0415 - only keepers need it, and supervisors must start fast

        status = os.fstat(descriptor)
        if status.st_mode & 0o170000 != 0o100000 or status.st_size != size:
            return False
        os.makedirs(self._incoming, mode=0o700, exist_ok=True)
        self._count += 1
        draft = f"{self._incoming}/{os.getpid()}-{time.time_ns():x}-{self._count}"
        digest = hashlib.md5(usedforsecurity=False)
        written = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            position = 0
            while position < size and (piece := os.pread(descriptor, min(_BLOCK_BYTES, size - position), position)):
                digest.update(piece)
                position += len(piece)
                view = memoryview(piece)
                while view:
                    view = view[os.write(written, view) :]
        except OSError:
            os.unlink(draft)
            raise
        finally:
            os.close(written)
        if position != size or digest.hexdigest() != md5:
            os.unlink(draft)
            return False
        self._waiting.append((draft, path))
        self._waiting_bytes += size
        if len(self._waiting) >= _MOST_WAITING or self._waiting_bytes >= _MOST_WAITING_BYTES:
            self._name_waiting()
        return True

    def _name_waiting(self) -> None:
        """Give the copies their names, once they are on the disk."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        size, self._waiting_bytes = self._waiting_bytes, 0
        kernel.sync_file_system(self._incoming)
        for draft, path in waiting:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            os.rename(draft, path)
        # Counting all entries is not done for each few bytes.
        self._added_bytes = max(self._added_bytes, 0) + size if self._added_bytes >= 0 else self._plan["limit_bytes"]
        if self._added_bytes >= self._plan["limit_bytes"] // 50:
            self._added_bytes = 0
            trim(self._plan["directory"], self._plan["limit_bytes"])

    def _use_layer(self, name: str) -> None:
        _touch(f"{self._plan['layers']}/{name}")
        with open(f"{self._instance_directory}/{LAYER_IN_USE}", "w", encoding="ascii") as file:
            file.write(name)


def trim(directory: str, limit_bytes: int) -> int:
    """Delete what was not used for the longest time until a tenth of the limit is free, if there is more than the limit; bytes deleted.

    Also removes what keepers that were killed have left half-taken. Safe beside keepers and readers: who has an entry open reads on.
    """
    deadline = time.time() - _STALE_SECONDS
    for path, status in _files(f"{directory}/{INCOMING}"):
        if status.st_mtime < deadline:
            _unlink(path)
    entries = list_entries(directory)
    total = sum(entry["size"] for entry in entries)
    if total <= limit_bytes:
        return 0
    freed = 0
    for entry in sorted(entries, key=_last_use):
        if total - freed <= limit_bytes * _FULLNESS_AFTER:
            break
        _unlink(entry["path"])
        freed += entry["size"]
    return freed


def list_entries(directory: str) -> list[Entry]:
    """All entries of a cache; a cache that is not there has none."""
    found: list[Entry] = []
    entries = f"{directory}/{ENTRIES}"
    try:
        folders = os.listdir(entries)
    except FileNotFoundError:
        return found
    for folder in folders:
        for path, status in _files(f"{entries}/{folder}"):
            found.append({"path": path, "size": status.st_size, "used_at": status.st_mtime})
    return found


def entry_path(entries: str, md5: str, size: int) -> str:
    """Where the entry of this content is."""
    return f"{entries}/{md5[:2]}/{md5}.{size}"


def is_entry_name(md5: str, size: str) -> bool:
    """Whether this can be a content's name."""
    return len(md5) == 32 and not md5.strip("0123456789abcdef") and size.isdigit() and len(size) < 16


def _last_use(entry: Entry) -> float:
    return entry["used_at"]


def _files(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        try:
            yield entry.path, entry.stat(follow_symlinks=False)
        except OSError:
            continue


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, content in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            found += [
                int.from_bytes(content[at : at + 4], "little" if _IS_LITTLE else "big")
                for at in range(0, len(content) - 3, 4)
            ]
    return found


_IS_LITTLE = memoryview(b"\x01\x00").cast("H")[0] == 1


def _touch(path: str) -> None:
    try:
        os.utime(path, follow_symlinks=False)
    except OSError:
        return  # It was deleted meanwhile.


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
