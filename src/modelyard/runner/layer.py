"""What a requirements.txt adds to an image, as a layer that is built once and shared.

A layer is a small virtual environment whose own packages come first and which has the image's packages behind them (a `.pth` line adds
them), so pip sees what the image brings as installed and leaves it alone. It is built under a temporary name and takes its real one in
one step, so a layer that is there is whole; a lock lets two runs with the same file build once. The cache may hold files of other users
of the project: only what is made here is changed.
"""
# ruff: noqa: PTH103, PTH104, PTH112, PTH113, PTH114, PTH118, PTH119, PTH120, PTH123, PTH208, PTH211 - paths stay strings: pathlib would slow the start

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import shutil
import site
import sys
import sysconfig
import time
from collections.abc import Generator

from modelyard.runner.figures import format_count
from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import INSTALL_FAILED, NO_SPACE, StepFailed
from modelyard.runner.pip import Frameworks, install
from modelyard.runner.plan import Plan
from modelyard.runner.process import run_quietly
from modelyard.runner.requirements import asks_for_hashes, layer_key, requirement_lines
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
    surroundings = [plan.image_digest, platform.python_version(), platform.machine(), *packages]
    key = layer_key(path, surroundings)
    layers = _layers_directory(plan.cache_dir)
    layer = os.path.join(layers, key)
    if not os.path.isdir(layer):
        with _locked(f"{layer}.lock", journal, stop):
            if not os.path.isdir(layer):
                seconds = _build(path, lines, layer, packages, plan, journal, stop)
                return _python(layer), f"installed in {seconds:.1f} s"
    journal.say(f"requirements: layer ready (cached) {key[:12]}")
    return _python(layer), "layer ready (cached)"


def _build(
    path: str, lines: list[str], layer: str, packages: list[str], plan: Plan, journal: Journal, stop: Stop
) -> float:
    begun = time.monotonic()
    journal.say(f"installing {os.path.basename(path)}: {format_count(len(lines), 'line')}")
    directory, key = os.path.split(layer)
    _remove_remains(directory, key)
    temporary = os.path.join(directory, f".{key}-{os.getpid():x}-{int(time.time() * 1000):x}")
    # Nobody else may write into a layer that they will execute.
    mask = os.umask(0o022)
    try:
        library = _lay_out(temporary, packages)
        frameworks = Frameworks.of_image()
        frameworks.write_aliases(library)
        install(_python(temporary), path, [] if asks_for_hashes(lines) else frameworks.pins(), plan, journal, stop)
        frameworks.check_untouched(library)
        _settle(temporary, layer, stop)
    except OSError as error:
        code = NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT) else INSTALL_FAILED
        raise StepFailed(f"The requirements can't be installed: {error.strerror or error}.", code) from error
    finally:
        os.umask(mask)
        shutil.rmtree(temporary, ignore_errors=True)
    seconds = time.monotonic() - begun
    journal.say(f"requirements installed in {seconds:.1f} s")
    return seconds


def _lay_out(layer: str, packages: list[str]) -> str:
    """Make an environment without packages; the directory for them."""
    base = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"
    paths = sysconfig.get_paths(scheme, vars={"base": layer, "platbase": layer})
    for directory in {paths["purelib"], paths["platlib"], paths["scripts"]}:
        os.makedirs(directory)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("python", "python3", f"python{version}"):
        os.symlink(base, os.path.join(paths["scripts"], name))
    _write(
        os.path.join(layer, "pyvenv.cfg"),
        f"home = {os.path.dirname(base)}\ninclude-system-site-packages = false\nversion = {platform.python_version()}\n",
    )
    lines = "".join(f"import site; site.addsitedir({directory!r})\n" for directory in packages)
    _write(os.path.join(paths["purelib"], "_modelyard_image.pth"), lines)
    return paths["purelib"]


def _settle(temporary: str, layer: str, stop: Stop) -> None:
    """Make the layer ready for its real name, and give it that."""
    scripts = os.path.join(temporary, "bin")
    for name in os.listdir(scripts):
        _relocate(os.path.join(scripts, name), temporary, layer)
    # Bytecode names the files where they will be, so that tracebacks are right.
    run_quietly([_python(temporary), "-m", "compileall", "-q", "-s", temporary, "-p", layer, temporary], stop)
    stop.check()
    os.sync()  # a layer that survives a power cut must be whole
    try:
        os.rename(temporary, layer)
    except OSError:
        if not os.path.isdir(layer):
            raise


def _relocate(script: str, temporary: str, layer: str) -> None:
    """Let a script's first lines name the interpreter where it will be."""
    if os.path.islink(script) or not os.path.isfile(script):
        return
    with open(script, "r+b") as file:
        content = file.read()
        if not content.startswith(b"#!") or temporary.encode() not in content[:4096]:
            return
        file.seek(0)
        file.write(content.replace(temporary.encode(), layer.encode()))
        file.truncate()


def _remove_remains(directory: str, key: str) -> None:
    """Remove what builds of this layer that were killed have left; the lock is held, so none is under way."""
    for name in os.listdir(directory):
        if name.startswith(f".{key}-"):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


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


def _write(path: str, content: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
