"""What the content of a requirements layer depends on, as its key.

Of the file's grammar only what decides about that is read here: included files, and packages that lie beside it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Callable

from modelyard.runner.requirements import requirement_lines
from modelyard.runner.tree import scan

LAYER_FORMAT = "1"
"""Changes when layers are built differently, so that old ones are not taken."""

_INCLUDE = re.compile(r"^(?:-r|-c|--requirement|--constraint)(?:\s+|=|(?<=-[rc]))(.+)$")
_LOCAL = re.compile(r"^(?:-e\b|--editable\b|\.{0,2}/|\.{1,2}$|file:)|@\s*file:|@\s*\.{0,2}/")


def layer_key(path: str, surroundings: list[str]) -> str:
    """64 hex digits that name what an installation of the file gives.

    Args:
        surroundings: what else decides: the image, the Python, the place of the image's packages.
    """
    digest = hashlib.sha256()
    for fact in (LAYER_FORMAT, *surroundings):
        digest.update(fact.encode() + b"\0")
    _digest_file(path, digest.update, set())
    return digest.hexdigest()


def _digest_file(path: str, add: Callable[[bytes], None], seen: set[str]) -> None:
    real = os.path.realpath(path)
    if real in seen or not os.path.isfile(real):
        return
    seen.add(real)
    with open(real, "rb") as file:
        add(file.read() + b"\0")
    directory = os.path.dirname(path)
    for line in requirement_lines(path):
        included = _INCLUDE.match(line)
        if included:
            _digest_file(os.path.join(directory, _unquote(included.group(1))), add, seen)
        elif _is_local(line, directory) and directory not in seen:
            seen.add(directory)
            _digest_tree(directory, add)


def _is_local(line: str, directory: str) -> bool:
    """Whether the line names something that lies on disk, so that the line alone does not tell what it installs."""
    return bool(_LOCAL.search(line)) or os.path.exists(os.path.join(directory, line.partition(";")[0].strip()))


def _digest_tree(directory: str, add: Callable[[bytes], None]) -> None:
    for file in scan(directory).files:
        add(file.name.encode() + b"\0")
        with open(file.path, "rb") as content:
            while piece := content.read(1 << 20):
                add(piece)


def _unquote(text: str) -> str:
    try:
        return shlex.split(text)[0]
    except (ValueError, IndexError):
        return text
