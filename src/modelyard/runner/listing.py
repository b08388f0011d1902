"""What a run's inputs look like, for the record of where its result comes from: a digest over the names, sizes and checksums of files.

The digest is SHA-256 over `{name}\\0{size}\\0{mark}\\n` of all files in the order of their names; the mark is the store's ETag, or the time
of writing in nanoseconds for files of a mounted directory, which nobody reads for this.
"""

from __future__ import annotations

import os
import time

from modelyard.runner.digests import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Line = tuple[str, int, str]

_LOOK_SECONDS = 3.0


def describe(lines: Iterable[Line]) -> dict[str, object]:
    """The record of these files (name, size, mark)."""
    digest = sha256()
    count = total = 0
    for name, size, mark in sorted(lines):
        digest.update(f"{name}\0{size}\0{mark}\n".encode(errors="surrogateescape"))
        count, total = count + 1, total + size
    return {"digest": digest.hexdigest(), "files": count, "bytes": total}


def describe_directory(path: str) -> dict[str, object]:
    """The record of a mounted directory or file; a note where it is too large to be listed in passing."""
    try:
        return describe(_lines(path, time.monotonic() + _LOOK_SECONDS))
    except TimeoutError:
        return {"note": f"not listed: it has more files than can be listed in {_LOOK_SECONDS:.0f} seconds"}
    except OSError as error:
        return {"note": f"not listed: {error.strerror}"}


def describe_file(path: str) -> dict[str, object]:
    """The record of one small file, by its content."""
    with open(path, "rb") as file:
        content = file.read()
    return {"digest": sha256(content).hexdigest(), "files": 1, "bytes": len(content)}


def _lines(path: str, deadline: float) -> Iterator[Line]:
    if os.path.isfile(path):
        seen = os.stat(path)
        yield os.path.basename(path), seen.st_size, str(seen.st_mtime_ns)
        return
    pending = [""]
    while pending:
        relative = pending.pop()
        with os.scandir(os.path.join(path, relative)) as entries:
            for entry in entries:
                if time.monotonic() > deadline:
                    raise TimeoutError
                name = f"{relative}/{entry.name}" if relative else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                else:
                    seen = entry.stat(follow_symlinks=False)
                    yield name, seen.st_size, str(seen.st_mtime_ns)
