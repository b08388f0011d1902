"""What a requirements.txt adds to an image, as a layer that is built once and shared.

A layer is a small virtual environment whose own packages come first and which has the image's packages behind them (a `.pth` line adds
them), so pip sees what the image brings as installed and leaves it alone. It is built under a temporary name and takes its real one in
one step, so a layer that is there is whole; a lock lets two runs with the same file build once. The cache may hold files of other users
of the project: only what is made here is changed.
"""

from __future__ import annotations

import os
import sys

from modelyard.runner.journal import Journal
from modelyard.runner.light import suppress
from modelyard.runner.outcomes import INSTALL_FAILED, StepFailed
from modelyard.runner.plan import Plan
from modelyard.runner.requirements import requirement_lines
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
    # Only here, as a run that asks for nothing has no use for them.
    from modelyard.runner.layer_key import layer_key  # noqa: PLC0415 - for runs with requirements alone

    packages = _site_packages()
    surroundings = [plan.image_digest, sys.version, os.uname().machine, *packages]
    key = layer_key(path, surroundings)
    layers = _layers_directory(plan.cache_dir)
    layer = os.path.join(layers, key)
    if not os.path.isdir(layer):
        with _Lock(f"{layer}.lock", journal, stop):
            if not os.path.isdir(layer):
                # Only here, as a run that finds its layer has no use for pip's and zip's modules.
                from modelyard.runner.layer_build import build_layer  # noqa: PLC0415 - for layers that are not there yet

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


def _site_packages() -> list[str]:
    """Where the image's packages are."""
    import site  # noqa: PLC0415 - the runner itself starts without it

    site.main()  # it finds out what the environment's prefix is
    return [directory for directory in site.getsitepackages() if os.path.isdir(directory)]


class _Lock:
    """A lock that ends with the process at the latest, for a `with`. Waiting ends with a stop."""

    def __init__(self, path: str, journal: Journal, stop: Stop) -> None:
        self._descriptor = _open_lock(path)
        self._journal = journal
        self._stop = stop

    def __enter__(self) -> None:
        import fcntl  # noqa: PLC0415 - see above

        is_told = False
        try:
            while True:
                with suppress(BlockingIOError):
                    return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not is_told:
                    self._journal.say("another run is installing the same requirements: waiting for it")
                    is_told = True
                self._stop.sleep(_LOCK_POLL_SECONDS)
        except BaseException:
            os.close(self._descriptor)
            raise

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _open_lock(path: str) -> int:
    # Without O_CREAT first: in a sticky directory the kernel refuses O_CREAT on a file of somebody else (fs.protected_regular).
    try:
        while True:
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            with suppress(FileExistsError):
                return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StepFailed(
            f"The cache for requirements can't be used: {error.strerror or error}.", INSTALL_FAILED
        ) from error


def _python(layer: str) -> str:
    return os.path.join(layer, "bin", "python")
