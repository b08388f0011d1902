"""Keeping what a run has made: files become objects of a container, or files of a mounted directory.

A store gets the md5 with every object and refuses what arrives otherwise, so a file that changes while it is sent is never stored torn.
Objects above what a store takes in one piece go up as segments with a manifest (SLO; DLO where the store has no SLO), and the segments
lie below `.segments/` at the container's root, where no listing of a directory shows them.

Source: https://docs.openstack.org/swift/latest/overview_large_objects.html
"""

from __future__ import annotations

import io
import os

from modelyard.runner import digests, jsons
from modelyard.runner.batches import COUNT, TOGETHER_BYTES, batches
from modelyard.runner.copying import copy_file, part_path
from modelyard.runner.http1 import Readable
from modelyard.runner.journal import Journal
from modelyard.runner.light import NamedTuple, suppress
from modelyard.runner.manifest import waiting_name
from modelyard.runner.names import SEGMENTS_PREFIX
from modelyard.runner.outcomes import BAD_SOURCE, NO_PERMISSION, NO_SPACE, UPLOAD_FAILED, Damaged, StepFailed
from modelyard.runner.plan import Upload
from modelyard.runner.stop import Stop
from modelyard.runner.swift import Bulk, Container
from modelyard.runner.tree import LocalFile, look, scan
from modelyard.runner.urls import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_BLOCK_BYTES = 1 << 20


class Sizes(NamedTuple):
    """Where files are treated differently, in bytes.

    Attributes:
        compare: from here on the store is asked first whether it has the same content.
        large: from here on a file goes up in segments (Swift takes 5 GiB in one piece).
        segment: how long a segment is.
    """

    compare: int = 100_000_000
    large: int = 4 << 30
    segment: int = 1 << 30


class Destination:
    """Where the files of one `Upload` go. Safe to use from several threads.

    Args:
        retry_seconds: how long a store that doesn't answer is waited for.
    """

    def __init__(
        self, upload: Upload, token: str, journal: Journal, retry_seconds: float, sizes: Sizes | None = None
    ) -> None:
        self.upload = upload
        self._sizes = sizes or Sizes()
        self._prefix = upload.prefix.strip("/") + "/" if upload.prefix.strip("/") else ""
        self._container: Container | None = None
        if upload.container_url:
            self._container = Container(
                upload.container_url,
                token,
                purpose="write",
                label=upload.label,
                journal=journal,
                retry_seconds=retry_seconds,
            )

    def known_checksums(self, stop: Stop) -> dict[str, str]:
        """Relative name → checksum of what is there already; empty where that can't be told (write permission alone is enough).

        A checksum is an md5, or, on a mounted directory, size and time of writing (`path_token`).
        """
        if self._container is None:
            return {file.name: path_token(file.size, file.modified_at_ns) for file in scan(self.upload.path).files}
        try:
            return {
                stored.name[len(self._prefix) :]: stored.etag for stored in self._container.list(self._prefix, stop)
            }
        except StepFailed:
            stop.check()
            return {}

    def is_large(self, file: LocalFile) -> bool:
        """Whether the file goes up in segments, so that no listing shows its checksum."""
        return self._container is not None and file.size >= self._sizes.large

    def store(
        self,
        file: LocalFile,
        stop: Stop,
        on_bytes: Callable[[int], None],
        known_checksum: str = "",
        waits_below: str = "",
    ) -> str:
        """Keep one file; its checksum. Sends nothing when its content is known to be there. Raises `StepFailed`.

        With `waits_below` the file does not take its own name yet, but its `waiting_name` there; large ones do.
        """
        if self._container is None:
            return self._copy(file, stop, on_bytes, known_checksum, waits_below)
        if self.is_large(file):
            return self._store_in_segments(self._container, file, stop, on_bytes)
        return self._store_whole(self._container, file, stop, on_bytes, known_checksum, waits_below)

    def batches(self, files: Iterable[LocalFile]) -> Iterator[Sequence[LocalFile]]:
        """Files as `store_together` takes them, where it is known by now (`known_checksums`) that the store does; otherwise each by itself."""
        bulk = self._container.bulk if self._container is not None else Bulk()
        key = self if bulk.write_count >= COUNT and bulk.write_bytes >= 2 * TOGETHER_BYTES else None
        return batches(files, lambda _: key, lambda file: file.size)

    def store_together(
        self, files: Sequence[LocalFile], there: Mapping[str, str], stop: Stop, waits_below: str = ""
    ) -> dict[str, str]:
        """Keep small files by one request; the checksums of those that were kept, by name. The others, which are in motion or which the store
        refuses, are to be stored by themselves. Raises `StepFailed`.

        Args:
            there: what is known to be there: the checksum of each name. The same content is not sent again.
            waits_below: where a name is taken by another content, the file does not take it yet, but its `waiting_name` there.
        """
        if self._container is None or len(files) < 2:
            return {}
        kept: dict[str, str] = {}
        objects: dict[str, tuple[str, bytes]] = {}
        for file in files:
            stop.check()
            try:
                content = _content(file)
            except (OSError, Damaged):
                continue  # told, or tried again, by whoever stores it alone
            checksum = digests.md5_of(content)
            kept[file.name] = checksum
            if there.get(file.name) != checksum:
                waits = waits_below and file.name in there
                name = waiting_name(waits_below, file.name, checksum) if waits else file.name
                objects[self._prefix + name] = (checksum, content)
        try:
            if objects:
                self._container.write_small(objects, stop)
        except StepFailed as failure:
            if failure.exit_code != BAD_SOURCE:
                raise
            return {}
        return kept

    def publish(self, staged: str, name: str, file: LocalFile, stop: Stop) -> None:
        """Let content that waits take its name, by a copy inside of the store where it can do that. Raises `StepFailed`."""
        if self._container is None:
            source, target = os.path.join(self.upload.path, staged), os.path.join(self.upload.path, name)
            try:
                os.replace(source, target)
            except OSError as error:
                raise StepFailed(f"{self.upload.label} can't be written: {error.strerror}.", NO_SPACE) from error
            return
        source = quote(f"/{self._container.name}/{self._prefix}{staged}")
        try:
            self._container.put(self._prefix + name, None, {"X-Copy-From": source}, stop)
        except StepFailed as failure:
            if failure.exit_code in (NO_PERMISSION, NO_SPACE):
                raise
            self._store_whole(self._container, file, stop, lambda _: None, "", "")

    def write(self, name: str, content: bytes, stop: Stop) -> None:
        """Keep a small text of the platform's, in one step. Raises `StepFailed`."""
        if self._container is not None:
            self._container.put(self._prefix + name, _Text(content), {"Content-Type": "application/json"}, stop)
            return
        target = os.path.join(self.upload.path, name)
        part = part_path(target)
        try:
            with open(part, "wb") as file:
                file.write(content)
            os.replace(part, target)
        except OSError as error:
            raise StepFailed(f"{self.upload.label} can't be written: {error.strerror}.", NO_SPACE) from error

    def read(self, name: str, stop: Stop) -> bytes:
        """A small text that was written before; nothing where it has gone."""
        if self._container is not None:
            try:
                return self._container.read(self._prefix + name, stop)
            except StepFailed:
                stop.check()
                return b""
        try:
            with open(os.path.join(self.upload.path, name), "rb") as file:
                return file.read()
        except OSError:
            return b""

    def remove(self, name: str, stop: Stop) -> None:
        """Take something of the platform's away; none there is fine."""
        if self._container is not None:
            self._container.delete(self._prefix + name, stop)
            return
        with suppress(OSError):
            os.unlink(os.path.join(self.upload.path, name))

    def mark_directory(self, relative: str, stop: Stop) -> None:
        """Keep an empty directory."""
        if self._container is None:
            os.makedirs(os.path.join(self.upload.path, relative), exist_ok=True)
            return
        self._container.put(f"{self._prefix}{relative}/", None, {"Content-Type": "application/directory"}, stop)

    def _copy(
        self,
        file: LocalFile,
        stop: Stop,
        on_bytes: Callable[[int], None],
        known_checksum: str,
        waits_below: str,
    ) -> str:
        token = path_token(file.size, file.modified_at_ns)
        if token == known_checksum:
            on_bytes(file.size)
            return token
        name = waiting_name(waits_below, file.name, token) if waits_below else file.name
        target = os.path.join(self.upload.path, name)
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            copy_file(file.path, target, stop, on_bytes, lambda: _check_rest(file))
        except OSError as error:
            code = NO_PERMISSION if isinstance(error, PermissionError) else NO_SPACE
            raise StepFailed(f"{self.upload.label} can't be written: {error.strerror or error}.", code) from error
        return token

    def _store_whole(
        self,
        container: Container,
        file: LocalFile,
        stop: Stop,
        on_bytes: Callable[[int], None],
        known_checksum: str,
        waits_below: str,
    ) -> str:
        checksum = _md5(file.path, 0, file.size, stop)
        _check_rest(file)
        name = self._prefix + file.name
        is_there = checksum == known_checksum
        if not is_there and waits_below:
            name = self._prefix + waiting_name(waits_below, file.name, checksum)
        elif not is_there and file.size >= self._sizes.compare:
            headers = container.head(name, stop) or {}
            is_there = headers.get("etag", "").strip('"') == checksum
        if not is_there:
            body = FilePart(file.path, 0, file.size, stop, on_bytes)
            container.put(name, body, {"ETag": checksum, "Content-Type": "application/octet-stream"}, stop)
        else:
            on_bytes(file.size)
        return checksum

    def _store_in_segments(
        self, container: Container, file: LocalFile, stop: Stop, on_bytes: Callable[[int], None]
    ) -> str:
        name = self._prefix + file.name
        folder = f"{SEGMENTS_PREFIX}{name}/"
        step = self._sizes.segment
        pieces = [(begin, min(step, file.size - begin)) for begin in range(0, file.size, step)]
        checksums = [_md5(file.path, begin, size, stop) for begin, size in pieces]
        _check_rest(file)
        whole = digests.md5_of("".join(checksums).encode())
        if (container.head(name, stop) or {}).get("etag", "").strip('"') == whole:
            on_bytes(file.size)
            return whole
        own = f"{folder}{whole}/"
        manifest: list[dict[str, object]] = []
        for number, ((begin, size), checksum) in enumerate(zip(pieces, checksums)):  # noqa: B905 - strict= came with Python 3.10
            segment = f"{own}{number:08d}"
            container.put(segment, FilePart(file.path, begin, size, stop, on_bytes), {"ETag": checksum}, stop)
            manifest.append({"path": f"/{container.name}/{segment}", "etag": checksum, "size_bytes": size})
        _put_manifest(container, name, own, manifest, stop)
        # Segments of what had the name before are nobody's now.
        for stored in list(container.list(folder, stop)):
            if not stored.name.startswith(own):
                container.delete(stored.name, stop)
        return whole


def path_token(size: int, modified_at_ns: int) -> str:
    """What names a file's content on a mounted directory: reading it all would cost as much as copying it. Microseconds, since some
    network file systems keep no finer times."""
    return f"{size}-{modified_at_ns // 1000}"


def _check_rest(file: LocalFile) -> None:
    """Raise `Damaged` when a file was written to since it was looked at. Content that was read before is then of no use."""
    now = look(file.name, file.path)
    if now is None or now.mark != file.mark:
        raise Damaged(f"'{file.name}' was changed while it was read.")


def _content(file: LocalFile) -> bytes:
    """All of a small file, which was at rest. Raises OSError, `Damaged`."""
    with open(file.path, "rb", buffering=0) as opened:
        content = opened.read(file.size + 1)
    _check_rest(file)
    if len(content) != file.size:
        raise Damaged(f"'{file.name}' was changed while it was read.")
    return content


class FilePart:
    """A part of a file as the body of a request. Reading ends with `Stopped` on a stop."""

    def __init__(self, path: str, begin: int, size: int, stop: Stop, on_bytes: Callable[[int], None]) -> None:
        self.size = size
        self._path = path
        self._begin = begin
        self._stop = stop
        self._on_bytes = on_bytes
        self._counted = 0

    def open(self) -> Readable:
        """A reader at the part's beginning; what an earlier one has counted is taken back."""
        self._on_bytes(-self._counted)
        self._counted = 0
        return _PartReader(self._path, self._begin, self.size, self._count)

    def _count(self, count: int) -> None:
        self._stop.check()
        self._counted += count
        self._on_bytes(count)


class _PartReader:
    def __init__(self, path: str, begin: int, size: int, on_bytes: Callable[[int], None]) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close(); see journal.py
        self._file.seek(begin)
        self._left = size
        self._on_bytes = on_bytes

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        content = self._file.read(wanted) if wanted else b""
        if wanted and not content:
            # The file has become shorter: filling up keeps the request whole, and its checksum makes the store refuse it.
            content = b"\0" * wanted
        self._left -= len(content)
        self._on_bytes(len(content))
        return content

    def close(self) -> None:
        self._file.close()


def _put_manifest(container: Container, name: str, folder: str, manifest: list[dict[str, object]], stop: Stop) -> None:
    content = jsons.dumps(manifest).encode()
    try:
        container.put(
            name, _Text(content), {"Content-Type": "application/octet-stream"}, stop, {"multipart-manifest": "put"}
        )
    except StepFailed as failure:
        if failure.exit_code in (NO_PERMISSION, NO_SPACE):
            raise
        container.put(name, None, {"X-Object-Manifest": quote(f"{container.name}/{folder}")}, stop)


class _Text:
    """A small body."""

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = content

    def open(self) -> Readable:
        return io.BytesIO(self._content)


def _md5(path: str, begin: int, size: int, stop: Stop) -> str:
    digest = digests.md5(size)
    try:
        for piece in _pieces(path, begin, size):
            stop.check()
            digest.update(piece)
    except OSError as error:
        raise StepFailed(f"'{path}' can't be read: {error.strerror}.", UPLOAD_FAILED) from error
    return digest.hexdigest()


def _pieces(path: str, begin: int, size: int) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        file.seek(begin)
        while size > 0 and (piece := file.read(min(_BLOCK_BYTES, size))):
            size -= len(piece)
            yield piece
