"""Building an environment: once, whole or not at all, with visible progress.

An environment is built in a directory beside its place and renamed when it is whole, under a lock for its digest; a crash leaves only
a directory that the next build removes. It is compiled to bytecode here, because its users see it read-only and would otherwise
compile it at every start. `python -m modelyard.compute.backends.local.build` is what a `Build` task runs, outside the sandbox.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from modelyard.compute.backends.local.build_errors import BuildFailed, explain
from modelyard.compute.backends.local.environments import (
    FACTS_FILE,
    EnvironmentFacts,
    EnvironmentStore,
    environment_lock,
    open_to_readers,
    read_spec,
)
from modelyard.compute.backends.local.interpreters import Interpreter, obtain_interpreter
from modelyard.compute.backends.local.package_sources import read_package_sources, tool_environment, uv_binary
from modelyard.compute.backends.local.packages import Resolution, Tool, ToolFailed, install, resolve
from modelyard.compute.backends.local.scripts import make_scripts_relocatable
from modelyard.compute.port import Environment

Report = Callable[[str, str, float], None]
"""Takes the step (`waiting`, `resolving`, `downloading`, `installing`, `compiling`, `ready`), a sentence, and 0.0 to 1.0."""

EXIT_FAILED = 1
EXIT_BAD_SPECIFICATION = 2
EXIT_STOPPED = 128 + signal.SIGTERM

_FACTS_SCRIPT = """
import json, sys, sysconfig
print(json.dumps({
    "version": ".".join(map(str, sys.version_info[:3])),
    "base_prefix": sys.base_prefix,
    "base_exec_prefix": sys.base_exec_prefix,
    "library": sysconfig.get_config_var("LIBDIR") if sysconfig.get_config_var("Py_ENABLE_SHARED") else None,
    "site_packages": sysconfig.get_path("purelib"),
}))
"""


def build_environment(
    environment: Environment, root: Path, report: Report, say: Callable[[str], None] | None = None
) -> Path:
    """Make sure that the environment is there and answer its path; at once when it was built before.

    Args:
        root: where environments are kept (`EnvironmentStore`); made when missing.
        report: told what goes on, several times a second at most while a tool runs.
        say: gets the tools' own lines, for a log.

    Raises `BuildFailed` with one sentence. Whatever is raised, nothing half is left under the environment's name.
    """
    root = root.absolute()  # the tools work in a directory of their own
    store = EnvironmentStore(root)
    if store.is_built(environment):
        report("ready", f"{environment.name} is built", 1.0)
        return store.path(environment)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with environment_lock(root, environment.digest, lambda: report("waiting", _WAITING, 0.0)) as lock:
            _remove_leftovers(root, environment)
            if not store.is_built(environment):
                _build(environment, root, lock, report, say or (lambda _: None))
    except OSError as error:
        raise _disk_failure(error, root) from error
    return store.path(environment)


_WAITING = "another build of the same environment is going on"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit codes: 0 built, 1 failed (the reason is the report's message), 2 unusable specification, 143 stopped."""
    parser = argparse.ArgumentParser(prog="modelyard-build", description="Build an environment.")
    parser.add_argument(
        "--spec", type=Path, required=True, help="JSON of the environment: name, python, requirements, core_type"
    )
    parser.add_argument("--root", type=Path, required=True, help="the directory of all environments")
    parser.add_argument("--report", type=Path, help="a JSON file that is kept up to date: step, message, progress")
    options = parser.parse_args(arguments)
    progress = _Progress(options.report)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        environment = read_spec(options.spec.read_text())
    except (OSError, ValueError) as error:
        progress.fail(f"The specification {options.spec} can't be used: {error}.")
        return EXIT_BAD_SPECIFICATION
    started = time.monotonic()
    try:
        build_environment(environment, options.root, progress.report, progress.say)
    except BuildFailed as failure:
        progress.fail(str(failure))
        return EXIT_FAILED
    except _Stopped:
        progress.fail("The build was stopped.")
        return EXIT_STOPPED
    progress.say(f"{environment.name} is ready ({time.monotonic() - started:.1f} s)")
    return 0


def _build(environment: Environment, root: Path, lock: int, report: Report, say: Callable[[str], None]) -> None:
    started = time.monotonic()
    report("resolving", f"looking for Python {environment.python}", 0.0)
    interpreter = obtain_interpreter(environment.python, root)
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(_temporary(root, f".building-{environment.digest}-")))
        work = Path(stack.enter_context(_temporary(root, f".building-{environment.digest}-work-")))
        steps = _Steps(report, started)
        tool = Tool(read_package_sources(), work, lock, say, steps.tick)
        try:
            resolution = _install(environment, interpreter, place, tool, steps)
        except ToolFailed as failure:
            machine, version = platform.machine(), str(interpreter.version)
            raise BuildFailed(
                explain(failure.output, name=environment.name, python=version, machine=machine, root=root)
            ) from None
        for warning in resolution.warnings:
            say(f"warning: {warning}")
        _compile(place, tool, steps)
        steps.begin("compiling", "making it readable for workloads", 0.97)
        size = open_to_readers(place)
        _flush(place)
        facts = _facts(environment, interpreter, resolution, place, size, time.monotonic() - started)
        _publish(place, root / environment.digest, facts)
    report("ready", f"{environment.name} built in {facts.build_seconds:.0f} s ({size / 1e6:,.0f} MB)", 1.0)


def _install(environment: Environment, interpreter: Interpreter, place: Path, tool: Tool, steps: _Steps) -> Resolution:
    steps.begin("resolving", f"choosing packages for Python {interpreter.version}", 0.02)
    resolution = resolve(environment, interpreter.executable, tool)
    steps.begin("downloading", f"{len(resolution.packages)} packages", 0.08)
    # Not the user's uv settings here: a setting such as `seed` would put other packages in than those resolved.
    command = [uv_binary(), "venv", "--quiet", "--no-config", "--relocatable", "--allow-existing"]
    command += ["--python", str(interpreter.executable), "--prompt", "modelyard", str(place)]
    tool.run(command, tool_environment())

    def on_download(what: str, share: float) -> None:
        steps.begin("downloading", what, 0.08 + 0.5 * share)

    install(resolution, place / "bin" / "python", tool, on_download)
    make_scripts_relocatable(place)
    steps.begin("installing", f"{len(resolution.packages)} packages installed", 0.6)
    return resolution


def _compile(place: Path, tool: Tool, steps: _Steps) -> None:
    """Compile all packages. The files are never checked against their source again: nobody can change either (PEP 552)."""
    total = sum(1 for _ in (place / "lib").rglob("*.py"))
    done = 0

    def count(line: str) -> None:
        nonlocal done
        if line.startswith("Compiling "):
            done += 1
            if done % 200 == 0:
                steps.begin("compiling", f"{done:,} of {total:,} files", 0.6 + 0.36 * min(1.0, done / max(total, 1)))

    steps.begin("compiling", f"{total:,} files", 0.6)
    mode = ["--invalidation-mode", "unchecked-hash"]
    command = [
        str(place / "bin" / "python"),
        "-I",
        "-m",
        "compileall",
        "-j",
        str(os.cpu_count() or 1),
        *mode,
        str(place / "lib"),
    ]
    # Packages carry files that are no valid Python (templates, tests for older versions): compileall's verdict says nothing.
    with contextlib.suppress(ToolFailed):
        tool.run(command, tool_environment(), count)


def _facts(
    environment: Environment, interpreter: Interpreter, resolution: Resolution, place: Path, size: int, seconds: float
) -> EnvironmentFacts:
    done = subprocess.run(
        [str(place / "bin" / "python"), "-I", "-c", _FACTS_SCRIPT],
        env=tool_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise BuildFailed(f"The interpreter {interpreter.executable} does not run: {done.stderr.strip()[-300:]}")
    seen: dict[str, Any] = json.loads(done.stdout)
    base_prefix = os.path.realpath(seen["base_prefix"])
    others = {os.path.realpath(each) for each in (seen["base_exec_prefix"], seen["library"]) if each}
    return EnvironmentFacts(
        digest=environment.digest,
        name=environment.name,
        python=environment.python,
        requirements=environment.requirements,
        core_type=environment.core_type,
        python_version=seen["version"],
        executable=str(interpreter.executable),
        base_prefix=base_prefix,
        library_directories=tuple(sorted(each for each in others if not f"{each}/".startswith(f"{base_prefix}/"))),
        site_packages=str(Path(seen["site_packages"]).relative_to(place)),
        packages=resolution.packages,
        installer=resolution.installer,
        size_bytes=size,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        build_seconds=round(seconds, 1),
        warnings=resolution.warnings + _reader_warnings(base_prefix),
    )


def _reader_warnings(base_prefix: str) -> tuple[str, ...]:
    """A sandbox mounts the base interpreter, but the modes inside stay: what others may not read, a workload can't either."""
    if Path(base_prefix).stat().st_mode & 0o005 == 0o005:
        return ()
    return (
        f"The base interpreter in {base_prefix} is readable by its owner only: workloads with users of their own can't run it.",
    )


def _publish(place: Path, target: Path, facts: EnvironmentFacts) -> None:
    """Write the marker last, then rename: whoever sees the name sees it whole, also after a power cut."""
    with (place / FACTS_FILE).open("w") as file:
        file.write(facts.to_json())
        file.flush()
        os.fsync(file.fileno())
    (place / FACTS_FILE).chmod(0o644)
    if target.exists():  # its base interpreter is gone; nothing can run in it
        broken = Path(tempfile.mkdtemp(prefix=f".building-{facts.digest}-", dir=target.parent))
        target.rename(broken / "broken")
        shutil.rmtree(broken, ignore_errors=True)
    place.rename(target)
    parent = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _flush(place: Path) -> None:
    """Bring the files to disk: the marker must not survive a power cut that they did not. `sync -f` flushes that file system."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(["sync", "-f", str(place)], check=False, timeout=300)


def _remove_leftovers(root: Path, environment: Environment) -> None:
    for leftover in [*root.glob(f".building-{environment.digest}-*"), *root.glob(f".removing-{environment.digest}-*")]:
        shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _temporary(root: Path, prefix: str) -> Generator[str]:
    path = tempfile.mkdtemp(prefix=prefix, dir=root)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _disk_failure(error: OSError, root: Path) -> BuildFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BuildFailed(f"The disk that holds {root} is full: free some space and build again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BuildFailed(
            f"{error.filename or root} can't be written ({error.strerror}): give the platform's user write access to {root}."
        )
    return BuildFailed(f"Building in {root} failed: {error}.")


class _Steps:
    """Repeats the present step with the time that it has taken, so that a long download is seen to be alive."""

    def __init__(self, report: Report, started: float) -> None:
        self._report = report
        self._started = started
        self._last = ("resolving", "", 0.0)
        self._told_at = 0.0

    def begin(self, step: str, message: str, progress: float) -> None:
        self._last = (step, message, round(progress, 3))
        self._tell(message)

    def tick(self) -> None:
        if time.monotonic() - self._told_at >= 1.0:
            self._tell(f"{self._last[1]}, {time.monotonic() - self._started:.0f} s")

    def _tell(self, message: str) -> None:
        self._told_at = time.monotonic()
        self._report(self._last[0], message, self._last[2])


class _Progress:
    """Where the command tells how it goes: lines on stdout (when a step begins, then every few seconds) and the report file."""

    _LINE_SECONDS = 5.0

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._step = ""
        self._line_at = 0.0

    def report(self, step: str, message: str, progress: float) -> None:
        self._write(step, message, progress)
        now = time.monotonic()
        if step != self._step or now - self._line_at >= self._LINE_SECONDS:
            self._step, self._line_at = step, now
            self.say(f"{step}: {message} ({progress:.0%})")

    def say(self, line: str) -> None:
        print(f"[modelyard] {line}", flush=True)

    def fail(self, sentence: str) -> None:
        self._write("failed", sentence, 1.0)
        self.say(f"failed: {sentence}")

    def _write(self, step: str, message: str, progress: float) -> None:
        if self._path is None:
            return
        temporary = self._path.with_name(f".{self._path.name}.new")
        # A report that can't be written must not fail a build that goes well.
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps({"step": step, "message": message, "progress": progress}))
            temporary.replace(self._path)


class _Stopped(BaseException):
    """SIGTERM or SIGINT came. Not an Exception: nothing on the way may take it for a failure of its own."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Once is enough: a second signal must not break the clearing up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise _Stopped


if __name__ == "__main__":
    sys.exit(main())
