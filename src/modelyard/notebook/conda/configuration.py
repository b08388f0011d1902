"""`.condarc`: which channels to look in. One on the data storage stays; one in the home goes with the next stop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any, cast

from modelyard.notebook.conda.problems import Problem

DEFAULT = "conda-forge"
"""Where to look as long as nothing is said."""


def channels() -> list[str]:
    """Those of the first `.condarc` that names any. Raises `Problem` for one that can't be read."""
    for path in _places():
        found = _channels_in(path)
        if found:
            return found
    return []


def add(wanted: Sequence[str], *, is_last: bool = False) -> None:
    """Look in these first, or last. What was looked in before is looked in still, the default among it."""
    if not wanted:
        return
    present = [channel for channel in channels() or [DEFAULT] if channel not in wanted]
    _write([*present, *wanted] if is_last else [*wanted, *present])


def remove(unwanted: Sequence[str]) -> None:
    """Look in these no more. Raises `Problem` for what is not there."""
    if not unwanted:
        return
    present = channels()
    missing = [channel for channel in unwanted if channel not in present]
    if missing:
        raise Problem(f"'{missing[0]}' is not among the channels; there are: {', '.join(present) or 'none'}")
    _write([channel for channel in present if channel not in unwanted])


def _channels_in(path: str) -> list[str]:
    named = _content_of(path).get("channels")
    if named is None:
        return []
    if not isinstance(named, list):
        raise Problem(f"{path}: 'channels' must be a list, one '- NAME' a line")
    return [str(item) for item in cast("list[Any]", named)]


def _content_of(path: str) -> dict[str, Any]:
    yaml: Any = import_module("yaml")
    try:
        with open(path, encoding="utf-8") as file:
            content: Any = yaml.safe_load(file)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Problem(f"{path} can't be read: {' '.join(str(error).split())}") from None
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _write(wanted: Sequence[str]) -> None:
    """Put them where they count: into the first file that names any, so that another does not take its place."""
    path = next(filter(_channels_in, _places()), _kept())
    yaml: Any = import_module("yaml")
    content: dict[str, Any] = {**_content_of(path), "channels": [*wanted]}
    if not wanted:
        del content["channels"]
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(yaml.safe_dump(content, sort_keys=False, allow_unicode=True) if content else "")
    except OSError as error:
        raise Problem(f"{path} can't be written: {error.strerror}") from None
    if path != _kept():
        print(f"{path} was changed. It goes with the next stop; what is in {_kept()} stays.")


def _kept() -> str:
    return f"{os.path.expanduser('~')}/easymaker/.condarc"


def _places() -> tuple[str, str]:
    return f"{os.path.expanduser('~')}/.condarc", _kept()
