"""Files that runs of the project have fetched before, found by their content, and the offer of those that this run has fetched.

The cache belongs to the platform; a run sees it read-only. Where that is so, an entry is what its name says, since the platform has looked
for itself before it kept it. Where it isn't (plain processes without a sandbox), content is compared while it is copied. Entries are
copied, never linked: what a script does to its data stays its own. Without a cache, or when it fails in any way, everything is fetched.
"""

from __future__ import annotations

import _thread
import errno
import io
import os

from modelyard.runner import digests
from modelyard.runner.copying import part_path, write_all
from modelyard.runner.light import suppress
from modelyard.runner.stop import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modelyard.runner.cacheoffers import Offers

_BLOCK_BYTES = 1 << 20
_KERNEL_BYTES = 16 << 20
_CANNOT_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF})


class DataCache:
    """The cache as one run uses it. Safe to use from several threads.

    Args:
        directory: where entries are, `{first two digits}/{md5}.{size}` below it; empty for no cache.
        door: the socket of the cache's keeper; empty for none.
    """

    def __init__(self, directory: str, door: str) -> None:
        self._directory = directory if directory and os.path.isdir(directory) else ""
        self._door = door if self._directory else ""
        self._is_trusted = bool(self._directory) and _is_read_only(self._directory)
        self._lock = _thread.allocate_lock()
        self._offers: Offers | None = None
        self.found_count = 0

    def bring(
        self,
        md5: str,
        size: int,
        modified_at: float,
        target: str,
        stop: Stop,
        on_bytes: Callable[[int], None],
    ) -> bool:
        """Have the content at `target`, whose directory exists, if the cache has it. Raises `OSError` when there is no room."""
        if not self._directory or not digests.is_md5(md5):
            return False
        entry = os.path.join(self._directory, md5[:2], f"{md5}.{size}")
        try:
            source = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if os.fstat(source).st_size != size or not self._copy(
                source, md5, size, modified_at, target, stop, on_bytes
            ):
                return False
        finally:
            os.close(source)
        with self._lock:
            self.found_count += 1
        self._say(f"used {md5} {size}", "")
        return True

    def offer(self, path: str, md5: str, size: int) -> None:
        """Offer a file that was fetched, soon and beside everything else; whoever changes it meanwhile only spoils the offer."""
        if md5:
            self._say(f"keep {md5} {size}", path)

    def note_layer(self, key: str) -> None:
        """The run uses this requirements layer: it must stay until the run has ended."""
        self._say(f"layer {key}", "")

    def finish(self, seconds: float) -> None:
        """Wait until everything offered was looked at and is kept, but not long."""
        if self._offers is not None:
            self._offers.finish(seconds)

    def _copy(
        self,
        source: int,
        md5: str,
        size: int,
        modified_at: float,
        target: str,
        stop: Stop,
        on_bytes: Callable[[int], None],
    ) -> bool:
        part = part_path(target)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        moved = 0
        try:
            with io.FileIO(descriptor, "wb") as file:
                copy = _in_kernel if self._is_trusted else _compared
                for count in copy(source, file, size, md5):
                    stop.check()
                    moved += count
                    on_bytes(count)
            if modified_at:
                os.utime(part, (modified_at, modified_at))
            os.replace(part, target)
        except _NotTheContent:
            on_bytes(-moved)
            os.unlink(part)
            return False
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
        return True

    def _say(self, message: str, path: str) -> None:
        if not self._door:
            return
        with self._lock:
            if self._offers is None:
                from modelyard.runner.cacheoffers import Offers  # noqa: PLC0415 - only a run with something to offer pays for it

                self._offers = Offers(self._door)
        self._offers.say(message, path)


class _NotTheContent(Exception):
    """An entry is not what its name says."""


def _in_kernel(source: int, file: io.FileIO, size: int, _md5: str) -> Iterator[int]:
    """Copy without a detour; file systems that can share blocks do."""
    position = 0
    while position < size:
        wanted = min(_KERNEL_BYTES, size - position)
        try:
            count = os.copy_file_range(source, file.fileno(), wanted, position, position)
        except (OSError, AttributeError) as error:
            if isinstance(error, OSError) and error.errno not in _CANNOT_COPY:
                raise
            file.seek(position)
            count = os.sendfile(file.fileno(), source, position, wanted)
        if not count:
            raise _NotTheContent
        position += count
        yield count


def _compared(source: int, file: io.FileIO, size: int, md5: str) -> Iterator[int]:
    """Copy, and compare what was copied."""
    digest = digests.md5(size)
    position = 0
    while position < size and (piece := os.pread(source, min(_BLOCK_BYTES, size - position), position)):
        digest.update(piece)
        write_all(file, memoryview(piece))
        position += len(piece)
        yield len(piece)
    if position != size or digest.hexdigest() != md5:
        raise _NotTheContent


def _is_read_only(directory: str) -> bool:
    """Whether nobody in this sandbox can write there, whoever the files belong to."""
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False
