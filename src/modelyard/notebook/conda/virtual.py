"""Environments by uv: a Python that this machine has (or that uv can fetch), packages from the Python index."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence

from modelyard.notebook.conda.environments import Environment
from modelyard.notebook.conda.problems import Problem

_SPEC = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(={1,2}|[<>!~]=?.*)?(.*)")


class Virtual:
    """Makes and changes them."""

    def create(self, environment: Environment, specs: Sequence[str]) -> None:
        """A new one, with a kernel's needs where the image can't lend them. Raises `Problem`."""
        wanted = [spec for spec in specs if _name(spec) != "python"]
        python = next((requirement(spec).removeprefix("python") for spec in specs if _name(spec) == "python"), "")
        version = python.lstrip("=").removesuffix(".*") or f"{sys.version_info.major}.{sys.version_info.minor}"
        try:
            _uv("venv", "--seed", "--python", version, environment.path)
        except Problem as problem:
            there_is = _versions()
            if any(f"{each}.".startswith(f"{version}.") for each in there_is):
                raise
            raise Problem(
                f"there is no Python {version} here, and it could not be fetched (see above); there is {', '.join(there_is)}"
            ) from problem
        os.makedirs(f"{environment.path}/conda-meta", exist_ok=True)
        with open(f"{environment.path}/conda-meta/history", "a", encoding="utf-8"):
            pass
        if environment.version != f"{sys.version_info.major}.{sys.version_info.minor}":
            wanted = [*wanted, "ipykernel"]
        if wanted:
            self.install(environment, wanted)

    def install(self, environment: Environment, specs: Sequence[str]) -> None:
        """More packages. Raises `Problem`."""
        wanted = [requirement(spec) for spec in specs]
        if environment.is_base:  # pip sees what the image has; uv would install it again
            _call([environment.python, "-m", "pip", "install", "--disable-pip-version-check", *wanted])
        else:
            _uv("pip", "install", "--python", environment.python, *wanted)

    def update(self, environment: Environment, names: Sequence[str]) -> None:
        """As new as the rest allows. Raises `Problem`."""
        if not names:
            raise Problem("name the packages that are to be newer")
        wanted = [requirement(name) for name in names]
        if environment.is_base:
            _call([environment.python, "-m", "pip", "install", "--disable-pip-version-check", "--upgrade", *wanted])
        else:
            _uv("pip", "install", "--python", environment.python, "--upgrade", *wanted)

    def remove(self, environment: Environment, names: Sequence[str]) -> None:
        """Fewer. Raises `Problem`."""
        if environment.is_base:
            _call([environment.python, "-m", "pip", "uninstall", "--yes", *names])
        else:
            _uv("pip", "uninstall", "--python", environment.python, *names)


def requirement(spec: str) -> str:
    """A conda specification as pip writes it: `numpy=1.26` is `numpy==1.26.*`. Raises `Problem`."""
    match = _SPEC.fullmatch(spec.strip())
    if match is None:
        raise Problem(f"'{spec}' is not a package: write NAME, NAME=VERSION or NAME>=VERSION")
    name, sign, rest = match.group(1), match.group(2) or "", match.group(3)
    if sign == "=":
        version = rest.split("=")[0]  # the build behind a second sign is conda's own
        return f"{name}=={version}.*" if not version.endswith("*") else f"{name}=={version}"
    return f"{name}{sign}{rest}"


def _name(spec: str) -> str:
    match = _SPEC.fullmatch(spec.strip())
    return "" if match is None else match.group(1).lower()


def _versions() -> list[str]:
    """The Pythons that this machine has: `3.11.2`."""
    argv = [_uv_path(), "python", "list", "--only-installed", "--no-python-downloads", "--offline"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()
    found = [line.split("-")[1] for line in lines if line.startswith("cpython-") and line.count("-") > 1]
    return list(dict.fromkeys(found)) or [f"{sys.version_info.major}.{sys.version_info.minor}"]


def _uv_path() -> str:
    return f"{os.environ.get('MODELYARD_NOTEBOOK_IMAGE', sys.prefix)}/bin/uv"


def _uv(*arguments: str) -> None:
    _call([_uv_path(), "--no-progress", *arguments])


def _call(command: Sequence[str]) -> None:
    # Hard links don't lead from boot storage, where the cache is, to the data storage.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    code = subprocess.call(list(command), env={"UV_LINK_MODE": "copy", **environment})
    if code != 0:
        raise Problem(f"it did not work; see above ({os.path.basename(command[0])} ended with {code})")
