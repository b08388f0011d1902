"""Which environments there are, and a kernel for each.

Environments below `custom-conda-envs` are found by what they are (an interpreter in `bin`), whoever made them: `conda`, uv or venv. A kernel
specification is written for each into a directory on boot storage that Jupyter searches first; nobody has to register anything, and one that
was deleted is no longer offered.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from typing import NamedTuple

from modelyard.notebook.plan import Plan
from modelyard.notebook.telling import write_whole

_MAX_ENVIRONMENTS = 100
_PREFIX = "env-"


class Found(NamedTuple):
    """An environment of the user's: its name, directory, and Python version (`3.11`; empty where it can't be told)."""

    name: str
    path: str
    version: str


def find_environments(plan: Plan) -> list[Found]:
    """Those that stay, by name."""
    found: list[Found] = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(plan.environments))[:_MAX_ENVIRONMENTS]:
            path = f"{plan.environments}/{name}"
            if not name.startswith(".") and os.access(f"{path}/bin/python", os.X_OK):
                found.append(Found(name, path, python_version(path)))
    return found


def python_version(path: str) -> str:
    """Of the environment in this directory: its libraries' directory tells, without starting anything."""
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(f"{path}/lib"), reverse=True):
            version = name.removeprefix("python")
            if name != version and os.path.isdir(f"{path}/lib/{name}/site-packages"):
                return version
    return ""


def write_kernels(plan: Plan, environments: list[Found]) -> None:
    """Kernel specifications for the default environment and for these; others that we wrote go."""
    place = f"{plan.base}/share/jupyter/kernels"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    _write_kernel(plan, f"{place}/python3", f"{plan.base}", f"{plan.title} · Python {version}", {})
    wanted = {"python3"}
    for found in environments:
        name = _PREFIX + "".join(c if c.isalnum() or c in "-_." else "-" for c in found.name).lower()
        label = f"{found.name} · Python {found.version}" if found.version else found.name
        _write_kernel(plan, f"{place}/{name}", found.path, label, {})
        wanted.add(name)
    for name in set(os.listdir(place)) - wanted:
        if name.startswith(_PREFIX):
            shutil.rmtree(f"{place}/{name}", ignore_errors=True)


def _write_kernel(plan: Plan, directory: str, environment: str, label: str, variables: dict[str, str]) -> None:
    os.makedirs(directory, exist_ok=True)
    specification = {
        "argv": [
            f"{environment}/bin/python",
            os.path.join(os.path.dirname(os.path.abspath(__file__)), "start_kernel.py"),
            plan.image,
            "-f",
            "{connection_file}",
        ],
        "display_name": label,
        "language": "python",
        "metadata": {"debugger": True},
        "env": {
            **variables,
            "PATH": f"{environment}/bin:{os.environ.get('PATH', os.defpath)}",
            "CONDA_PREFIX": environment,
            "VIRTUAL_ENV": environment,
        },
    }
    text = json.dumps(specification, ensure_ascii=False, indent=1)
    path = f"{directory}/kernel.json"
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as file:
        if file.read() == text:
            return
    write_whole(path, text)
    resources = f"{plan.image}/share/jupyter/kernels/python3"
    for logo in ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg"):
        with contextlib.suppress(OSError):
            shutil.copyfile(f"{resources}/{logo}", f"{directory}/{logo}")
