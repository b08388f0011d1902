"""Writing files so that nobody ever sees half of one, and copying them from and to mounted directories."""

from __future__ import annotations

import io
import itertools
import os

from modelyard.runner.light import suppress
from modelyard.runner.stop import Stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK_BYTES = 1 << 20
_numbers = itertools.count()


def part_path(target: str) -> str:
    """A name beside the target, unlike any other, short enough for every file system: `.{host}-{pid}-{number}.part`."""
    own = f"{os.uname().nodename[:32]}-{os.getpid():x}-{next(_numbers):x}"
    return os.path.join(os.path.dirname(target), f".{own}.part")


def copy_file(
    source: str, target: str, stop: Stop, on_bytes: Callable[[int], None], check: Callable[[], None] | None = None
) -> None:
    """Copy content and modification time to `target`, whose directory exists, and take its name in one step. Raises `OSError`.

    `check` is called when all is read and before the name is taken; it raises where the source was not at rest.
    """
    part = part_path(target)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with io.FileIO(descriptor, "wb") as written, open(source, "rb", buffering=0) as read:
            while piece := read.read(_BLOCK_BYTES):
                stop.check()
                write_all(written, memoryview(piece))
                on_bytes(len(piece))
            found = os.fstat(read.fileno())
        if check is not None:
            check()
        os.utime(part, ns=(found.st_mtime_ns, found.st_mtime_ns))
        os.replace(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def write_all(file: io.FileIO, content: memoryview) -> None:
    """Write everything, however little one write takes."""
    while content:
        written = file.write(content)
        content = content[written:]
