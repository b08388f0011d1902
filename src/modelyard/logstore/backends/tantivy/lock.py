"""One writing process per store: a lock on a file, which the kernel lets go of when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from modelyard.logstore.backends.tantivy.errors import LogStoreInUse


class WriterLock:
    """Held from `take` to `release`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raise `LogStoreInUse` if another process, or another store in this one, has it."""
        descriptor = os.open(self._root / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise LogStoreInUse(self._root, holder) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another process write."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
