"""`conda activate` and `deactivate`: lines for the shell, and the same as variables."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Sequence

from modelyard.notebook.conda import environments
from modelyard.notebook.conda.environments import Environment
from modelyard.notebook.conda.problems import Problem

FUNCTION = """\
conda() {
    case "$1" in
        activate|deactivate) eval "$(command conda shell.posix "$@" || echo false)" ;;
        *) command conda "$@" ;;
    esac
}
"""
"""What makes `conda activate` work in a shell: a program can't change the variables of the shell that has started it."""


def script(arguments: Sequence[str]) -> str:
    """What the shell evaluates for `activate [NAME or PATH]`, `deactivate` and `hook`."""
    verb, *rest = arguments or ("",)
    if verb == "hook":
        return FUNCTION
    if verb not in ("activate", "deactivate"):
        raise Problem("use 'conda activate NAME' or 'conda deactivate'")
    words = [word for word in rest if not word.startswith("-")]
    key = words[0] if verb == "activate" and words else "base"
    environment = environments.find(key)
    if environment is None:
        raise Problem(f"there is no environment '{key}'; 'conda env list' shows those that there are")
    lines = [f". {shlex.quote(path)}" for path in reversed(_scripts(environments.active(), "deactivate"))]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables(environment).items()]
    lines += [f". {shlex.quote(path)}" for path in _scripts(environment, "activate")]
    return "\n".join(lines)


def command(environment: Environment, argv: Sequence[str]) -> list[str]:
    """The command line that runs a program as in a shell in which the environment is active; its variables come besides (`variables`)."""
    scripts = _scripts(environment, "activate")
    if not scripts:
        return [*argv]
    begin = "".join(f". {shlex.quote(path)}; " for path in scripts)
    return ["/bin/bash", "-c", f'{begin}exec "$@"', "conda", *argv]


def variables(environment: Environment) -> dict[str, str]:
    """What is different in this environment."""
    active = environments.active().path
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


def _scripts(environment: Environment, verb: str) -> list[str]:
    """What packages of the environment want to be read at this moment."""
    return sorted(glob.glob(f"{glob.escape(environment.path)}/etc/conda/{verb}.d/*.sh"))
