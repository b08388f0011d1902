"""Becomes the Jupyter server: `python -m modelyard.notebook.lab CONFIG.json`.

The same as `jupyter lab --config`, without the search for a program that starts a program, and without what its start would spend most of
its time on though nothing here asks for it: jsonschema's grammars of internationalised addresses (RFC 3987; 38 parsers, 1.5 s), and what
yarn is told to use (a start of Node.js), which matters to who builds JupyterLab.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

_ADDRESSES = "rfc3987_syntax"
_OUT_OF_MEMORY_SCORE = "600"  # an instance has 500


def main() -> None:
    """Serve until told to end."""
    go_before_the_session()
    gc.disable()  # what imports make stays: looking through it again and again takes a sixth of the time
    put_off(_ADDRESSES, "is_valid_syntax")
    commands: Any = import_module("jupyterlab.commands")
    commands._yarn_config = _no_yarn_config
    labapp: Any = import_module("jupyterlab.labapp")
    gc.freeze()
    gc.enable()
    labapp.LabApp.launch_instance(["--config", sys.argv[1]])


def go_before_the_session() -> None:
    """Where the notebook's memory runs out, what is started from here ends before the process that looks after it."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(_OUT_OF_MEMORY_SCORE)


def leave() -> NoReturn:
    """End at once: kernels have ended and files are written. The thread in which a last file was written waits for more, and the interpreter
    would wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def put_off(name: str, function: str) -> None:
    """Let the module `name`, of which others use only this function, be imported when that is called for the first time."""
    stand_in: Any = ModuleType(name)

    def call(*arguments: Any, **options: Any) -> Any:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(import_module(name), function)(*arguments, **options)

    setattr(stand_in, function, call)
    sys.modules[name] = stand_in


def _no_yarn_config(_logger: Any) -> dict[str, dict[str, Any]]:
    """What JupyterLab takes where there is no yarn: its own registry."""
    return {"yarn config": {}, "npm config": {}}


if __name__ == "__main__":
    main()
    leave()
