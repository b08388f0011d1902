"""The default environment: the image's packages, and room for the user's own that is fresh at every start.

It is a virtual environment on boot storage whose packages come first and the image's after them (`site.addsitedir`, so that `.pth` files of
the image work). pip installs into it and never touches the image, which everybody shares; the Jupyter server runs from the image alone, so
nothing that is installed here can break it. What was installed is written down on the data storage: the next start tells what is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, cast

from modelyard.notebook.conda.shell import FUNCTION
from modelyard.notebook.plan import Plan
from modelyard.notebook.telling import write_whole

_INSTALLED = "default-packages.json"
LOST = "lost-packages.txt"
_MAX_LISTED = 100


def make_default_environment(plan: Plan) -> None:
    """Make it. A few small files, in milliseconds."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = f"{plan.base}/lib/{version}/site-packages"
    for directory in (f"{plan.base}/bin", site_packages, f"{plan.base}/conda-meta", f"{plan.base}/share/jupyter"):
        os.makedirs(directory, exist_ok=True)
    interpreter = os.path.realpath(sys.executable)
    _write(f"{plan.base}/pyvenv.cfg", f"home = {os.path.dirname(interpreter)}\ninclude-system-site-packages = false\n")
    for name in ("python", "python3", version):
        with contextlib.suppress(FileExistsError):
            os.symlink(interpreter, f"{plan.base}/bin/{name}")
    image_packages = f"{plan.image}/lib/{version}/site-packages"
    _write(f"{site_packages}/_image.pth", f"import site; site.addsitedir({image_packages!r})\n")
    _write(f"{plan.base}/conda-meta/history", "")
    python = f"{plan.base}/bin/python"
    for name in ("pip", "pip3"):
        _write(f"{plan.base}/bin/{name}", f'#!/bin/sh\nexec "{python}" -m pip "$@"\n', 0o755)
    _write(f"{plan.base}/bin/ipython", f'#!/bin/sh\nexec "{python}" -m IPython "$@"\n', 0o755)
    # The image's interpreter, without what the user has installed: `conda` works whatever was broken.
    conda = (
        f'#!/bin/sh\nPYTHONPATH="{_library()}" exec "{plan.image}/bin/python" -s -P -m modelyard.notebook.conda "$@"\n'
    )
    _write(f"{plan.base}/bin/conda", conda, 0o755)
    # Where scripts look for it: `source …/conda.sh`, `source activate NAME`.
    os.makedirs(f"{plan.base}/etc/profile.d", exist_ok=True)
    _write(f"{plan.base}/etc/profile.d/conda.sh", FUNCTION)
    _write(f"{plan.base}/bin/activate", f'. "{plan.base}/etc/profile.d/conda.sh"\nconda activate "$@"\n')


def installed(plan: Plan) -> list[str]:
    """`name==version` of what the user has installed into the default environment."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found: list[str] = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"{plan.base}/lib/{version}/site-packages"):
            stem, dot, kind = name.rpartition(".")
            if dot and kind == "dist-info":
                project, _, release = stem.partition("-")
                found.append(f"{project}=={release}" if release else project)
    return sorted(found, key=str.lower)[:_MAX_LISTED]


def remember(plan: Plan, packages: list[str]) -> None:
    """Write down what would be lost; a full disk is nobody's mistake."""
    with contextlib.suppress(OSError):
        os.makedirs(plan.state, exist_ok=True)
        write_whole(f"{plan.state}/{_INSTALLED}", json.dumps(packages))


def take_lost(plan: Plan) -> list[str]:
    """What the start before had installed and this one has not; leaves a list for `pip install -r`. Told once."""
    path = f"{plan.state}/{_INSTALLED}"
    try:
        with open(path, encoding="utf-8") as file:
            content: Any = json.load(file)
    except (OSError, ValueError):
        return []
    if not isinstance(content, list):
        return []
    packages = [item for item in cast("list[Any]", content) if isinstance(item, str)][:_MAX_LISTED]
    with contextlib.suppress(OSError):
        if packages:
            write_whole(f"{plan.state}/{LOST}", "".join(f"{package}\n" for package in packages))
        os.unlink(path)
    return packages


def _library() -> str:
    """The directory that holds the package `modelyard`."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _write(path: str, text: str, mode: int = 0o644) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)
