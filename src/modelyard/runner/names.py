"""Object names as paths below a directory: which are fit to become files, and which never do.

Both directions ask here, so that what one run uploads another can fetch.
"""

from __future__ import annotations

SEGMENTS_PREFIX = ".segments/"
"""Where the pieces of large objects lie in a container; no data of their own."""


class UnsafeName(ValueError):
    """The name can't become a file below a directory; the message says why."""


def check_name(name: str) -> str:
    """The relative path that an object's name (below its prefix) stands for, which is the name itself.

    Raises `UnsafeName` for everything that could leave the directory or mean two things: absolute names, `.`, `..` and empty segments,
    backslashes, NUL and other control characters, names that are not UTF-8 and segments longer than a file name may be.
    """
    if not name:
        raise UnsafeName("the name is empty")
    if name.startswith("/"):
        raise UnsafeName(f"the name {name!r} is absolute")
    if "\\" in name:
        raise UnsafeName(f"the name {name!r} has a backslash")
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise UnsafeName(f"the name {name!r} has a control character")
    for segment in name.split("/"):
        _check_segment(segment, name)
    return name


def _check_segment(segment: str, name: str) -> None:
    if segment == "..":
        raise UnsafeName(f"the name {name!r} leads out of its directory with '..'")
    if segment in ("", "."):
        raise UnsafeName(f"the name {name!r} has an empty or '.' segment")
    try:
        length = len(segment.encode())
    except UnicodeEncodeError:
        raise UnsafeName(f"the name {name!r} is not UTF-8") from None
    if length > 255:
        raise UnsafeName(f"the name {name!r} has a segment of more than 255 bytes")
