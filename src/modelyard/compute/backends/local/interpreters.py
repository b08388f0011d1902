"""Python interpreters of this machine, matched against what an image asks for.

uv does the looking and the asking of each interpreter (it keeps what it learnt in its cache); this module shows it the places that a
daemon's PATH does not name (pyenv's versions, the interpreter under the platform itself), picks one, and turns "none" into a
sentence. Building an environment on an interpreter is `build`'s business.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from modelyard.compute.backends.local.build_errors import BuildFailed, last_line
from modelyard.compute.backends.local.package_sources import tool_environment, uv_binary

DOWNLOADS_DIRECTORY = ".pythons"
"""Below the environments' root: interpreters that uv downloaded for images (they need the same readers as environments)."""

_LIST_SECONDS = 60.0
_DOWNLOAD_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A CPython on this machine: its real executable and its version."""

    executable: Path
    version: Version

    @property
    def minor(self) -> str:
        """The version as images say it, e.g. `3.11`."""
        return f"{self.version.major}.{self.version.minor}"


class NoSuchPython(BuildFailed):
    """No interpreter here fits, and none could be downloaded."""

    def __init__(self, wanted: str, found: Iterable[Interpreter], download_failure: str) -> None:
        versions = ", ".join(str(interpreter.version) for interpreter in found) or "none"
        super().__init__(
            f"This image needs Python {wanted}, which is not on this machine (found: {versions}) and could not be downloaded "
            f"({download_failure}): install Python {wanted} with the system's packages or pyenv, and build the image again."
        )


def python_specifier(wanted: str) -> SpecifierSet:
    """What an image's `python` means: `3.11` any 3.11, `3.11.7` just that, else a specifier such as `>=3.9,<3.12`.

    Raises ValueError for anything else.
    """
    text = wanted.strip()
    if text and text[0].isdigit():
        text = f"=={text}" if text.count(".") >= 2 else f"=={text}.*"
    try:
        specifier = SpecifierSet(text)
    except InvalidSpecifier:
        raise ValueError(f"'{wanted}' is neither a Python version nor a specifier such as '>=3.9,<3.12'") from None
    if not len(specifier):
        raise ValueError("a Python version is needed, e.g. '3.11'")
    return specifier


def find_interpreters(root: Path | None = None) -> tuple[Interpreter, ...]:
    """The CPythons of this machine, the newest first, one for each version.

    Args:
        root: of the environments; interpreters that were downloaded below it count too.

    Raises `BuildFailed` when uv can't be asked.
    """
    environment = _lookup_environment(root)
    command = [uv_binary(), "python", "list", "--only-installed", "--output-format", "json", "--offline", "--no-config"]
    try:
        done = subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True, timeout=_LIST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"Looking for Python interpreters took more than {_LIST_SECONDS:.0f} s.") from None
    if done.returncode != 0:
        raise BuildFailed(f"Looking for Python interpreters failed: {last_line(done.stderr)}")
    return _unique(json.loads(done.stdout or "[]"))


def choose_interpreter(wanted: str, found: Iterable[Interpreter]) -> Interpreter | None:
    """The newest of `found` that fits, or None. A pre-release fits only when nothing else does."""
    specifier = python_specifier(wanted)
    fitting = [each for each in found if specifier.contains(each.version, prereleases=True)]
    return max(fitting, key=lambda each: (not each.version.is_prerelease, each.version), default=None)


def obtain_interpreter(wanted: str, root: Path) -> Interpreter:
    """An interpreter that fits: one of this machine, else one that uv downloads below `root`. Raises `NoSuchPython`."""
    found = find_interpreters(root)
    chosen = choose_interpreter(wanted, found)
    if chosen is not None:
        return chosen
    failure = _download(wanted, root)
    if failure is None:
        chosen = choose_interpreter(wanted, find_interpreters(root))
    if chosen is None:
        raise NoSuchPython(wanted, found, failure or "the download left nothing behind")
    return chosen


def _lookup_environment(root: Path | None) -> dict[str, str]:
    """The variables for uv's search: pyenv's own versions instead of its shims (which fail for all versions but the chosen)."""
    environment = tool_environment()
    pyenv = Path(environment.get("PYENV_ROOT") or Path(environment.get("HOME") or "/") / ".pyenv")
    places = [str(Path(os.path.realpath(sys.executable)).parent)]
    with suppress(PermissionError):  # of another user, whose settings this process has inherited
        places += sorted(str(directory) for directory in pyenv.glob("versions/*/bin"))
    path = environment.get("PATH") or os.defpath
    places += [place for place in path.split(os.pathsep) if place and Path(place) != pyenv / "shims"]
    environment["PATH"] = os.pathsep.join(dict.fromkeys([*places, "/usr/local/bin", "/usr/bin"]))
    if root is not None:
        environment["UV_PYTHON_INSTALL_DIR"] = str(root / DOWNLOADS_DIRECTORY)
    return environment


def _unique(rows: Any) -> tuple[Interpreter, ...]:
    best: dict[Version, Path] = {}
    for row in cast("list[Mapping[str, Any]]", rows):
        is_plain = row.get("implementation") == "cpython" and row.get("variant", "default") == "default"
        if not is_plain or not row.get("path"):
            continue
        best.setdefault(Version(str(row["version"])), Path(os.path.realpath(str(row["path"]))))
    return tuple(Interpreter(path, version) for version, path in sorted(best.items(), reverse=True))


def _download(wanted: str, root: Path) -> str | None:
    """Let uv fetch an interpreter; answers why it could not, or None. Where uv is told never to download, it says so itself."""
    command = [uv_binary(), "python", "install", "--no-bin", "--no-progress", "--compile-bytecode", wanted]
    environment = _lookup_environment(root)
    try:
        done = subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_DOWNLOAD_SECONDS:.0f} s"
    if done.returncode == 0:
        return None
    return last_line(done.stderr) or f"uv ended with code {done.returncode} on {platform.machine()}"
