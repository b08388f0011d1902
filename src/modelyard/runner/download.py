"""How one object becomes a file: whole, checked and under its name at once, or not at all.

A broken connection goes on where it broke (`Range` with `If-Match`); content that differs from its checksum starts again. Checksums of
large objects (SLO, DLO) are not an md5 of the content, so for them the size alone is checked.
"""

from __future__ import annotations

import io
import os

from modelyard.runner import digests
from modelyard.runner.copying import part_path, write_all
from modelyard.runner.http1 import Response
from modelyard.runner.light import suppress
from modelyard.runner.outcomes import Damaged
from modelyard.runner.patience import Transient
from modelyard.runner.stop import Stop
from modelyard.runner.swift import Container, Stored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK_BYTES = 1 << 20
_TRIES = 3


def download(container: Container, stored: Stored, target: str, stop: Stop, on_bytes: Callable[[int], None]) -> str:
    """Write an object's content to `target`, whose directory exists; its md5 as the store has it too, or nothing for a large object.

    Raises `StepFailed`; leaves nothing half.
    """
    part = part_path(target)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with io.FileIO(descriptor, "wb") as file:
            transfer = _Transfer(container, stored, file, stop, on_bytes)
            transfer.run()
        if transfer.modified_at is not None:
            os.utime(part, (transfer.modified_at, transfer.modified_at))
        os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    return transfer.checked_md5


def keep(content: memoryview, md5: str, modified_at: float, target: str) -> bool:
    """Make a file of content that is at hand, whole and under its name at once; False, and nothing, where it is not of this md5."""
    if digests.md5_of(content) != md5:
        return False
    part = part_path(target)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with io.FileIO(descriptor, "wb") as file:
            write_all(file, content)
        if modified_at:
            os.utime(part, (modified_at, modified_at))
        os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    return True


class _Transfer:
    """The tries at one object and what they have brought so far."""

    def __init__(
        self, container: Container, stored: Stored, file: io.FileIO, stop: Stop, on_bytes: Callable[[int], None]
    ) -> None:
        self._container = container
        self._stored = stored
        self._file = file
        self._stop = stop
        self._on_bytes = on_bytes
        self._patience = container.patience(stop)
        self._restart()
        self.modified_at: float | None = None

    def run(self) -> None:
        damage = ""
        for _ in range(_TRIES):
            while not self._is_complete():
                try:
                    self._attempt()
                except Transient as failure:
                    self._patience.wait(f"read {self._stored.name}", failure)
            damage = self._damage()
            if not damage:
                return
            self._begin_again()
        raise Damaged(
            f"'{self._stored.name}' of {self._container.label} arrived damaged {_TRIES} times: {damage}. Upload it again."
        )

    @property
    def checked_md5(self) -> str:
        """The content's md5, where the store knows it and it is right."""
        return self._etag if self._is_md5 else ""

    def _restart(self) -> None:
        self._offset = 0
        self._size: int | None = None
        self._etag = ""
        self._is_md5 = False
        self._digest = digests.md5(self._stored.size)

    def _begin_again(self) -> None:
        self._on_bytes(-self._offset)
        self._restart()
        self._file.seek(0)
        self._file.truncate()

    def _is_complete(self) -> bool:
        return self._size is not None and self._offset >= self._size

    def _attempt(self) -> None:
        self._stop.check()
        headers: dict[str, str] = {}
        if self._offset:
            headers["Range"] = f"bytes={self._offset}-"
            if self._etag:
                headers["If-Match"] = f'"{self._etag}"'
        response = self._container.get(self._stored.name, headers)
        if response.status == 412 or (self._offset and not self._continues(response)):
            # Another object has taken the name, or the server knows no ranges.
            self._container.drop()
            self._begin_again()
            return
        if not self._offset:
            self._note(response)
        self._receive(response)

    def _continues(self, response: Response) -> bool:
        etag = _etag(response)
        begins_here = response.headers.get("content-range", "").startswith(f"bytes {self._offset}-")
        return response.status == 206 and begins_here and (not etag or etag == self._etag)

    def _note(self, response: Response) -> None:
        self._etag = _etag(response)
        is_large = "x-object-manifest" in response.headers or "x-static-large-object" in response.headers
        self._is_md5 = not is_large and digests.is_md5(self._etag)
        length = response.headers.get("content-length", "")
        # An answer in chunks tells its own end.
        self._size = int(length) if length.isdigit() else None
        with suppress(ValueError):
            self.modified_at = float(response.headers.get("x-timestamp", "")) or None

    def _receive(self, response: Response) -> None:
        buffer = memoryview(bytearray(min(_BLOCK_BYTES, max(self._size or _BLOCK_BYTES, 1))))
        while True:
            self._stop.check()
            try:
                count = response.readinto(buffer)
            except OSError as error:
                self._container.drop()
                raise Transient(f"the connection broke ({error})") from None
            if not count:
                break
            piece = buffer[:count]
            self._digest.update(piece)
            write_all(self._file, piece)
            self._offset += count
            self._on_bytes(count)
            self._patience.renew()
        if self._size is None:
            self._size = self._offset
        if not self._is_complete():
            self._container.drop()
            raise Transient(f"the connection broke after {self._offset} of {self._size} bytes")

    def _damage(self) -> str:
        if self._offset != self._size:
            return f"{self._offset} bytes instead of {self._size}"
        found = self._digest.hexdigest()
        if self._is_md5 and found != self._etag:
            return f"its md5 is {found} instead of {self._etag}"
        return ""


def _etag(response: Response) -> str:
    value = response.headers.get("etag", "")
    return (value[2:] if value.startswith("W/") else value).strip('"').lower()
