"""What was asked for in an environment of channels, in the file in which conda keeps it (`conda-meta/history`)."""

from __future__ import annotations

import ast
import contextlib
import os
import time
from collections.abc import Sequence

_ASKED, _TAKEN_AWAY = "# update specs: ", "# remove specs: "


def requested(path: str) -> list[str]:
    """The specifications that count, the newest for each package, in the order in which they came."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, SyntaxError), open(_file(path), encoding="utf-8") as file:
        for line in file:
            for mark in (_ASKED, _TAKEN_AWAY):
                if line.startswith(mark):
                    for spec in ast.literal_eval(line.removeprefix(mark)):
                        found.pop(name_of(spec), None)
                        if mark == _ASKED:
                            found[name_of(spec)] = spec
    return list(found.values())


def write(path: str, asked: Sequence[str] = (), taken_away: Sequence[str] = ()) -> None:
    """Note what has just been done. Raises OSError."""
    os.makedirs(f"{path}/conda-meta", exist_ok=True)
    lines = [f"==> {time.strftime('%Y-%m-%d %H:%M:%S')} <=="]
    lines += [f"{_ASKED}{list(asked)!r}"] if asked else []
    lines += [f"{_TAKEN_AWAY}{list(taken_away)!r}"] if taken_away else []
    with open(_file(path), "a", encoding="utf-8") as file:
        file.write("\n".join([*lines, ""]))


def name_of(spec: str) -> str:
    """The package that a specification is of: `numpy` for `conda-forge::numpy>=1.2`."""
    name = spec.rpartition("::")[2].strip()
    for at, sign in enumerate(name):
        if sign in " =<>!~[":
            return name[:at].lower()
    return name.lower()


def _file(path: str) -> str:
    return f"{path}/conda-meta/history"
