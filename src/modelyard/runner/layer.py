"""What a requirements.txt adds to an image, as a layer that is built once and shared.

A layer is a small virtual environment whose own packages come first and which has the image's packages behind them (a `.pth` line adds
them), so pip sees what the image brings as installed and leaves it alone. It is built under a temporary name and takes its real one in
one step, so a layer that is there is whole; a lock lets two runs with the same file build once. The cache may hold files of other users
of the project: only what is made here is changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import site
import sys
from collections.abc import Generator

from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import INSTALL_FAILED, StepFailed
from modelyard.runner.plan import Plan
from modelyard.runner.requirements import layer_key, requirement_lines
from modelyard.runner.stop import Stop

_LOCK_POLL_SECONDS = 0.2


def prepare_layer(plan: Plan, journal: Journal, stop: Stop) -> tuple[str, str]:
    """Install the plan's requirements; the interpreter to use, and a line about it. Raises `StepFailed`."""
    path = plan.requirements
    if path is None or not os.path.isfile(path):
        return sys.executable, "no requirements"
    lines = requirement_lines(path)
    if not lines:
        journal.say(f"{os.path.basename(path)} asks for nothing")
        return sys.executable, "nothing required"
    packages = [directory for directory in site.getsitepackages() if os.path.isdir(directory)]
    surroundings = [plan.image_digest, sys.version, os.uname().machine, *packages]
    key = layer_key(path, surroundings)
    layers = _layers_directory(plan.cache_dir)
    layer = os.path.join(layers, key)
    if not os.path.isdir(layer):
        with _locked(f"{layer}.lock", journal, stop):
            if not os.path.isdir(layer):
                # Only here, as a run that finds its layer has no use for pip's and zip's modules.
                from modelyard.runner.layer_build import build_layer  # noqa: PLC0415

                seconds = build_layer(path, lines, layer, packages, plan, journal, stop)
                return _python(layer), f"installed in {seconds:.1f} s"
    journal.say(f"requirements: layer ready (cached) {key[:12]}")
    return _python(layer), "layer ready (cached)"


def _layers_directory(cache_dir: str) -> str:
    directory = os.path.join(cache_dir, "layers")
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise StepFailed(
            f"The cache for requirements can't be used: {error.strerror or error}.", INSTALL_FAILED
        ) from error
    return directory


@contextlib.contextmanager
def _locked(path: str, journal: Journal, stop: Stop) -> Generator[None]:
    """Hold a lock that ends with the process. Waiting ends with a stop."""
    descriptor = _open_lock(path)
    try:
        is_told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not is_told:
                    journal.say("another run is installing the same requirements: waiting for it")
                    is_told = True
                stop.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: str) -> int:
    # Without O_CREAT first: in a sticky directory the kernel refuses O_CREAT on a file of somebody else (fs.protected_regular).
    try:
        while True:
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            with contextlib.suppress(FileExistsError):
                return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StepFailed(
            f"The cache for requirements can't be used: {error.strerror or error}.", INSTALL_FAILED
        ) from error


def _python(layer: str) -> str:
    return os.path.join(layer, "bin", "python")
