"""Which environments can be built on this machine, and why not: what `modelyard doctor` and `modelyard image list` show.

Nothing is built or downloaded for the answer, and no index is asked; that packages can be had shows only in the build.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from modelyard.compute.backends.local.build_errors import BuildFailed
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.compute.backends.local.interpreters import (
    Interpreter,
    choose_interpreter,
    find_interpreters,
    python_specifier,
)
from modelyard.compute.backends.local.package_sources import tool_environment, uv_binary
from modelyard.compute.port import Environment

_MACHINES = ("x86_64", "aarch64")
_FREE_BYTES_PLAIN = 100 * 1000**2
_FREE_BYTES_FRAMEWORK = 3 * 1000**3
_FREE_BYTES_GPU = 15 * 1000**3
_PLAIN_REQUIREMENTS_COUNT = 5


@dataclass(frozen=True, slots=True)
class Buildable:
    """The answer for one environment: whether it is there, whether it could be built, and one sentence for a person."""

    environment: Environment
    is_built: bool
    can_build: bool
    message: str


def check_buildable(environments: Iterable[Environment], root: Path) -> tuple[Buildable, ...]:
    """Look at each environment against this machine, in the order given."""
    store = EnvironmentStore(root)
    general = _general_fault(root)
    try:
        found = find_interpreters(root)
    except BuildFailed as failure:
        found, general = (), general or str(failure)
    answers: list[Buildable] = []
    for environment in environments:
        facts = store.facts(environment)
        if facts is not None:
            message = f"built ({facts.size_bytes / 1e6:,.0f} MB, Python {facts.python_version})"
            answers.append(Buildable(environment, True, True, message))
            continue
        fault = general or _disk_fault(environment, root)
        can_build, message = (False, fault) if fault else _judged(environment, found)
        answers.append(Buildable(environment, False, can_build, message))
    return tuple(answers)


def _judged(environment: Environment, found: tuple[Interpreter, ...]) -> tuple[bool, str]:
    chosen = choose_interpreter(environment.python, found)
    if chosen is not None:
        return True, f"can be built on Python {chosen.version} ({chosen.executable})"
    if _is_downloadable(environment.python):
        return (
            True,
            f"Python {environment.python} is not on this machine; it will be downloaded, if the network allows it",
        )
    return (
        False,
        f"Python {environment.python} is not on this machine: install it with the system's packages or pyenv",
    )


def _general_fault(root: Path) -> str | None:
    """What keeps every environment from being built, or None."""
    try:
        uv_binary()
    except FileNotFoundError:
        return "uv is missing from the platform's installation: install Modelyard again"
    if platform.machine() not in _MACHINES:
        return f"there are no ready packages for {platform.machine()} machines (only for {' and '.join(_MACHINES)})"
    place = _existing(root)
    if not os.access(place, os.W_OK | os.X_OK):
        return f"{place} can't be written: give the platform's user write access to it"
    return None


def _disk_fault(environment: Environment, root: Path) -> str | None:
    is_plain = len(environment.requirements) <= _PLAIN_REQUIREMENTS_COUNT
    needed = _FREE_BYTES_PLAIN if is_plain else _FREE_BYTES_FRAMEWORK
    if environment.core_type == "GPU":
        needed = _FREE_BYTES_GPU
    free = shutil.disk_usage(_existing(root)).free
    if free >= needed:
        return None
    return f"the disk that holds {root} has {free / 1e9:.1f} GB free and about {needed / 1e9:.1f} GB are needed: free some space"


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _is_downloadable(wanted: str) -> bool:
    """Whether uv knows an interpreter that it could fetch (it looks into its own list, not at the network)."""
    command = [uv_binary(), "python", "list", "--only-downloads", "--offline", str(python_specifier(wanted))]
    try:
        done = subprocess.run(
            command, env=tool_environment(), cwd="/", capture_output=True, text=True, timeout=30, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and bool(done.stdout.strip())
