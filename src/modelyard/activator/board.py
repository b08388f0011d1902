"""What the platform tells the activator and hears from it: files in one directory, each replaced as a whole.

`board.json` says which models may rest, where each one's requests come in, and which model servers answer for it now. A file `wake/{id}`
says that a request waits for a model. Both sides may be killed at any time; what is there when they come back is true.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Seat:
    """A model that may rest.

    Attributes:
        id: of the endpoint model.
        socket: the Unix socket that its requests come in on while no model server is there.
        addresses: Unix sockets of the model servers that may get requests now.
        message: why there is none, in a sentence for the caller.
        hold_seconds: how long a request may wait.
        limit: how many may wait.
    """

    id: str
    socket: str
    addresses: tuple[str, ...] = ()
    message: str = ""
    hold_seconds: float = 60.0
    limit: int = 256


@dataclass(frozen=True, slots=True)
class Board:
    """The directory that both sides share."""

    directory: Path

    def socket_of(self, id: str) -> str:
        """Where the requests of a model come in. Short, since the path of a Unix socket has at most 107 bytes."""
        return str(self.directory / f"{hashlib.sha256(id.encode()).hexdigest()[:16]}.sock")

    def write(self, seats: Iterable[Seat]) -> None:
        """Replace what is on the board."""
        self._wakes.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = json.dumps([asdict(seat) for seat in sorted(seats, key=lambda seat: seat.id)])
        with suppress(OSError):
            if self._file.read_text(encoding="utf-8") == content:
                return
        new = self._file.with_suffix(".new")
        new.write_text(content, encoding="utf-8")
        new.replace(self._file)

    def read(self) -> Mapping[str, Seat]:
        """The seats by id; none where nothing was written yet."""
        try:
            items: list[dict[str, Any]] = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        seats = [Seat(**item) for item in items]
        return {seat.id: replace(seat, addresses=tuple(seat.addresses)) for seat in seats}

    @property
    def version(self) -> tuple[int, int]:
        """Changes with each write."""
        try:
            status = self._file.stat()
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino

    def wake(self, id: str) -> None:
        """A request waits for this model."""
        with suppress(OSError):
            (self._wakes / id).touch()

    def take_wakes(self) -> set[str]:
        """The models that requests wait for. Each waiting request says so again and again, so nothing is lost by taking."""
        try:
            ids = {file.name for file in self._wakes.iterdir()}
        except OSError:
            return set()
        for id in ids:
            (self._wakes / id).unlink(missing_ok=True)
        return ids

    def hold_lock(self) -> int | None:
        """Be the one activator of this directory: a descriptor to keep; None when there is one."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        return descriptor

    def holder(self) -> int | None:
        """The process id of the activator of this directory; None when none runs."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 32, 0).decode()
            return int(text) if text.isdigit() else None
        finally:
            os.close(descriptor)
        return None

    @property
    def _file(self) -> Path:
        return self.directory / "board.json"

    @property
    def _wakes(self) -> Path:
        return self.directory / "wake"

    @property
    def _lock(self) -> Path:
        return self.directory / "activator.lock"
