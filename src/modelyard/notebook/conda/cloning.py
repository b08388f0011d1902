"""`conda create --clone`: an environment like another, with what pip has put into it, and without asking the network."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from modelyard.notebook.conda import linked
from modelyard.notebook.conda.environments import Environment
from modelyard.notebook.conda.problems import Problem

_LONGEST_SCRIPT_BYTES = 2**20


def clone(source: Environment, target: Environment) -> None:
    """Make `target` what `source` is. Raises `Problem`."""
    if source.is_of_channels:
        linked.Linked(()).copy(source, target)
    try:
        for directory, names in _tree(source.path, without=target.path):
            os.makedirs(f"{target.path}{directory}", exist_ok=True)
            for name in names:
                _copy(source, target, f"{directory}/{name}")
    except OSError as error:
        raise Problem(f"{source.path} could not be copied: {error.strerror} ({error.filename})") from None


def _tree(root: str, *, without: str) -> Iterator[tuple[str, list[str]]]:
    """Directories, as paths below the root, and what else is in them; links are not followed. A copy may lie within: it is left out."""
    for place, directories, files in os.walk(root):
        links = [name for name in directories if os.path.islink(f"{place}/{name}")]
        left_out = {*links, "__pycache__"}
        directories[:] = [name for name in directories if name not in left_out and f"{place}/{name}" != without]
        yield place[len(root) :], [*links, *files]


def _copy(source: Environment, target: Environment, path: str) -> None:
    """One file, unless the target has it: what came from a channel is there, with its own paths in it."""
    new = f"{target.path}{path}"
    if os.path.lexists(new):
        return
    shutil.copy2(f"{source.path}{path}", new, follow_symlinks=False)
    if os.path.islink(new) or os.path.getsize(new) > _LONGEST_SCRIPT_BYTES:
        return
    # Programs and `activate` scripts name the directory that they are in; so do the records of pip's editable installs.
    if path.startswith("/bin/") or path.endswith((".pth", "pyvenv.cfg")):
        with contextlib.suppress(UnicodeDecodeError), open(new, encoding="utf-8") as file:
            text = file.read()
            changed = text.replace(source.path, target.path)
            if changed != text:
                with open(new, "w", encoding="utf-8") as rewritten:
                    rewritten.write(changed)
