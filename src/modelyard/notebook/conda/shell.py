"""`conda activate` and `deactivate`: lines for the shell, and the same as variables."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from modelyard.notebook.conda import environments
from modelyard.notebook.conda.environments import Environment
from modelyard.notebook.conda.problems import Problem


def script(arguments: Sequence[str]) -> str:
    """What the shell evaluates for `activate [NAME or PATH]` and `deactivate`."""
    verb, *rest = arguments or ("",)
    if verb not in ("activate", "deactivate"):
        raise Problem("use 'conda activate NAME' or 'conda deactivate'")
    key = rest[0] if verb == "activate" and rest else "base"
    environment = environments.find(key)
    if environment is None:
        raise Problem(f"there is no environment '{key}'; 'conda env list' shows those that there are")
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables(environment).items())


def variables(environment: Environment) -> dict[str, str]:
    """What is different in this environment."""
    active = os.environ.get("CONDA_PREFIX", "")
    kept = [part for part in os.environ.get("PATH", os.defpath).split(":") if part != f"{active}/bin"]
    default = environments.find("base")
    base = [] if default is None or environment.is_base else [f"{default.path}/bin"]
    path = [f"{environment.path}/bin", *base, *(part for part in kept if part not in base)]
    return {
        "PATH": ":".join(dict.fromkeys(path)),
        "CONDA_PREFIX": environment.path,
        "CONDA_DEFAULT_ENV": environment.shown,
        "CONDA_SHLVL": "1" if environment.is_base else "2",
        "VIRTUAL_ENV": "" if environment.is_base else environment.path,
    }
