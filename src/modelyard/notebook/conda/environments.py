"""Environments, and where they are."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from modelyard.notebook.conda.problems import Problem
from modelyard.notebook.kernels import python_version


class Environment(NamedTuple):
    """A directory that is, or is to be, an environment."""

    path: str

    @property
    def name(self) -> str:
        """What people call it."""
        return "base" if self.is_base else os.path.basename(self.path)

    @property
    def shown(self) -> str:
        """How it is named on a command line."""
        return self.name if self.stays or self.is_base else self.path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return f"{self.path}/bin/python"

    @property
    def exists(self) -> bool:
        """Whether it is there."""
        return os.access(self.python, os.X_OK) or os.path.isdir(f"{self.path}/conda-meta")

    @property
    def is_base(self) -> bool:
        """Whether it is the default environment."""
        return self.path == _base()

    @property
    def stays(self) -> bool:
        """Whether a stop leaves it."""
        return os.path.dirname(self.path) == _kept()

    @property
    def is_of_channels(self) -> bool:
        """Whether its packages come from conda channels."""
        with contextlib.suppress(OSError):
            has_records = any(name.endswith(".json") for name in os.listdir(f"{self.path}/conda-meta"))
            return has_records or not os.path.lexists(self.python)  # all of its packages may have been removed
        return False

    @property
    def version(self) -> str:
        """Of its Python, e.g. `3.11`."""
        return python_version(self.path)


def named(name: str) -> str:
    """The directory of an environment with this name. Raises `Problem` for what can't be one."""
    if name and ("/" in name or name in (".", "..")):
        raise Problem(f"'{name}' can't be a name; use --prefix for a path")
    return f"{_kept()}/{name}" if name else _kept()


def active() -> Environment:
    """The one that commands mean which name none."""
    return Environment(os.environ.get("CONDA_PREFIX") or _base())


def find(key: str) -> Environment | None:
    """The environment of this name or path, if it is there."""
    if key in ("base", "root"):
        return Environment(_base())
    place = os.path.abspath(key) if "/" in key or key in (".", "..") else named(key)
    environment = Environment(place)
    return environment if environment.exists else None


def listed() -> list[Environment]:
    """The default one, and all that stay."""
    found = [Environment(_base())]
    with contextlib.suppress(OSError):
        found += [Environment(f"{_kept()}/{name}") for name in sorted(os.listdir(_kept()))]
    return [environment for environment in found if environment.exists]


def _base() -> str:
    return os.path.dirname(os.path.dirname(os.environ.get("CONDA_EXE", "/opt/conda/bin/conda")))


def _kept() -> str:
    return os.environ.get("CONDA_ENVS_PATH", "/root/easymaker/custom-conda-envs")
