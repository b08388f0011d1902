"""Becomes the Jupyter server: `python -m modelyard.notebook.lab CONFIG.json`.

The same as `jupyter lab --config`, without the search for a program that starts a program.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def main() -> None:
    """Serve until told to end."""
    labapp: Any = import_module("jupyterlab.labapp")
    labapp.LabApp.launch_instance(["--config", sys.argv[1]])


if __name__ == "__main__":
    main()
