"""How a requirements layer is made: laid out, filled by pip, compiled, and given its name."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import sys
import sysconfig
import time

from modelyard.runner.figures import format_count
from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import INSTALL_FAILED, NO_SPACE, StepFailed
from modelyard.runner.pip import Frameworks, install
from modelyard.runner.plan import Plan
from modelyard.runner.process import run_quietly
from modelyard.runner.requirements import asks_for_hashes
from modelyard.runner.stop import Stop


def build_layer(
    path: str, lines: list[str], layer: str, packages: list[str], plan: Plan, journal: Journal, stop: Stop
) -> float:
    """Build a layer whose lock is held; the seconds that it took. Raises `StepFailed`, leaving nothing.

    Args:
        path: the requirements file, and `lines` what it says.
        layer: the directory that the layer gets, which is not there yet.
        packages: the image's package directories.
    """
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


def _python(layer: str) -> str:
    return os.path.join(layer, "bin", "python")


def _write(path: str, content: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
