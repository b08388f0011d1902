"""Choosing and installing the packages of an environment.

First everything is resolved, then looked at, then installed exactly as resolved: so a CUDA build that would come into a CPU image
is seen before its gigabytes are fetched. uv does the work, with the places that pip is configured for; where uv can't find a
solution there and pip can (an old index, a place that only pip can log in to), pip does both steps instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from modelyard.compute.backends.local.build_errors import mask_credentials
from modelyard.compute.backends.local.downloads import Downloads
from modelyard.compute.backends.local.package_sources import PackageSources, tool_environment, uv_binary
from modelyard.compute.port import Environment

_TICK_SECONDS = 1.0
_GRACE_SECONDS = 3.0
_KEPT_OUTPUT_CHARACTERS = 200_000

_CPU_BUILD = re.compile(r"^[A-Za-z0-9._-]+==[^+\s]+\+cpu\b")

Say = Callable[[str], None]
"""Takes a line for the log."""


class ToolFailed(Exception):
    """uv or pip ended with an error; `output` is all that it printed."""

    def __init__(self, output: str) -> None:
        super().__init__("the installer failed")
        self.output = output


@dataclass(frozen=True, slots=True)
class Resolution:
    """What will be installed.

    Attributes:
        packages: pinned, one each, e.g. `torch==2.13.0+cpu`.
        installer: who resolved them and must install them, `uv` or `pip`.
        variables: for the installer, e.g. the index of CPU builds.
        warnings: sentences for people.
    """

    packages: tuple[str, ...]
    installer: str
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class Tool:
    """Runs uv and pip for one build: where they work, what they hold, where their lines go.

    Attributes:
        sources: where packages come from.
        directory: an empty directory to work in, so that no project's own configuration counts.
        lock: a descriptor that the children hold as well (`environment_lock`).
        say: gets each line printed. `tick` is called about once a second while a tool runs.
    """

    sources: PackageSources
    directory: Path
    lock: int
    say: Say
    tick: Callable[[], None]

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        on_line: Say | None = None,
        on_written: Callable[[int], None] | None = None,
    ) -> str:
        """Run to the end and answer the output. Raises `ToolFailed`; ends the tool when anything else is raised meanwhile.

        `on_line` gets the lines instead of `say`; `on_written` the bytes that the tool has written to files, about once a second.
        """
        process = subprocess.Popen(
            list(argv),
            env=dict(environment),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(self.lock,),
            start_new_session=True,  # a group of its own: it is ended with all its children, or not at all
        )
        try:
            output = self._follow(process, on_line or self.say, on_written)
        except BaseException:
            _end_group(process)
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
        if process.wait() != 0:
            raise ToolFailed(output)
        return output

    def _follow(self, process: subprocess.Popen[bytes], on_line: Say, on_written: Callable[[int], None] | None) -> str:
        assert process.stdout is not None  # it was asked for above
        descriptor = process.stdout.fileno()
        kept, rest = "", b""
        poll = select.poll()  # unlike select(), no limit on descriptors
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        while True:
            is_ready = bool(poll.poll(_TICK_SECONDS * 1000))
            self.tick()
            if not is_ready:
                if on_written is not None:
                    on_written(_written_bytes(process.pid))
                continue
            piece = os.read(descriptor, 65536)
            *lines, rest = (rest + piece).split(b"\n")
            if not piece and rest:
                lines, rest = [rest], b""
            for line in lines:
                text = mask_credentials(line.decode(errors="replace")).rstrip()
                kept = (kept + text + "\n")[-_KEPT_OUTPUT_CHARACTERS:]
                if text:
                    on_line(text)
            if not piece:
                return kept


def _written_bytes(pid: int) -> int:
    """Bytes that the process has written, by Linux' own count (proc(5), `wchar`); 0 where it is not to be read."""
    try:
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the tool, then SIGKILL to all that it started: nothing may go on writing into a directory that is being removed."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def resolve(environment: Environment, python: Path, tool: Tool) -> Resolution:
    """Decide what to install on the interpreter `python`. Raises `ToolFailed` with uv's output where there is no solution."""
    requirements = tool.directory / "requirements.in"
    requirements.write_text("\n".join(_with_pip(environment.requirements)) + "\n")
    try:
        packages = _resolve_by_uv(requirements, python, tool, {})
    except ToolFailed as failure:
        if not tool.sources.has_places:
            raise
        tool.say("uv finds no solution in the places that pip is configured for; asking pip itself")
        with contextlib.suppress(ToolFailed):
            return _resolve_by_pip(requirements, python, tool, environment)
        raise failure from None  # uv says more clearly what does not fit
    if environment.core_type == "GPU":
        return _without_cpu_builds(packages, requirements, python, tool)
    if not cuda_packages(packages):
        return Resolution(packages, "uv")
    cpu = _resolve_cpu_build(requirements, python, tool) if "torch" in names_of(packages) else None
    return cpu or Resolution(packages, "uv", warnings=(_cuda_warning(packages),))


def install(resolution: Resolution, python: Path, tool: Tool, on_download: Callable[[str, float], None]) -> None:
    """Install exactly what was resolved into the environment of `python`. Raises `ToolFailed`.

    `on_download` is called with what is being fetched, as a text, and about how much of everything is done, 0.0 to 1.0.
    """
    listing = tool.directory / "resolved.txt"
    listing.write_text("\n".join(resolution.packages) + "\n")
    downloads = Downloads(on_download)

    def follow(line: str) -> None:
        downloads.see(line)
        if not line.startswith((" + ", "Using Python ")):  # each package once more at the end, and the unfinished place
            tool.say(line)

    if resolution.installer == "uv":
        command = [
            uv_binary(),
            "pip",
            "install",
            *tool.sources.uv_options(),
            "--no-deps",
            "--python",
            str(python),
            "-r",
            str(listing),
        ]
        tool.run(command, tool.sources.uv_environment() | dict(resolution.variables), follow, downloads.unpacked)
        return
    command = [*_pip(python), "install", "--no-deps", "--no-compile", "--progress-bar", "off", "-r", str(listing)]
    tool.run(command, tool_environment(), follow, downloads.unpacked)


def cuda_packages(packages: Sequence[str]) -> tuple[str, ...]:
    """Those of the packages that only serve NVIDIA GPUs."""
    return tuple(
        name
        for name in names_of(packages)
        if name.startswith(("nvidia-", "cuda-")) or name in {"triton", "pytorch-triton"}
    )


def names_of(packages: Sequence[str]) -> tuple[str, ...]:
    """The normalised names of requirements in pip's form; lines that are none (options, paths) are left out."""
    names: list[str] = []
    for line in packages:
        try:
            names.append(canonicalize_name(Requirement(line).name))
        except InvalidRequirement:
            continue
    return tuple(names)


def _with_pip(requirements: Sequence[str]) -> list[str]:
    """Environments have pip, because a training's requirements.txt is installed in a layer by it."""
    return list(requirements) if "pip" in names_of(requirements) else [*requirements, "pip"]


def _resolve_by_uv(requirements: Path, python: Path, tool: Tool, variables: Mapping[str, str]) -> tuple[str, ...]:
    resolved = requirements.with_suffix(".out")
    resolved.unlink(missing_ok=True)  # uv would prefer the versions in it
    options = [
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--strip-extras",
        "--python",
        str(python),
        "-o",
        str(resolved),
    ]
    tool.run(
        [uv_binary(), "pip", "compile", *tool.sources.uv_options(), *options, str(requirements)],
        tool.sources.uv_environment() | dict(variables),
    )
    return tuple(
        line.strip() for line in resolved.read_text().splitlines() if line.strip() and not line.startswith("#")
    )


def _resolve_cpu_build(requirements: Path, python: Path, tool: Tool) -> Resolution | None:
    """PyTorch's own index of CPU builds, which uv knows by name. None where it can't be reached or has no such build."""
    tool.say("the configured indexes offer only a CUDA build of torch; looking for its CPU build")
    variables = {"UV_TORCH_BACKEND": "cpu"}
    quiet = replace(tool, say=_silence)
    try:
        packages = _resolve_by_uv(requirements, python, quiet, variables)
    except ToolFailed:
        tool.say("the CPU build of torch is not to be had from here")
        return None
    return None if cuda_packages(packages) else Resolution(packages, "uv", variables)


def _without_cpu_builds(packages: tuple[str, ...], requirements: Path, python: Path, tool: Tool) -> Resolution:
    """For a GPU image: a local version such as `2.13.0+cpu` sorts above the plain one and would win; look again without it."""
    cpu_builds = [line for line in packages if _CPU_BUILD.search(line)]
    if not cpu_builds:
        return Resolution(packages, "uv")
    with requirements.open("a") as file:
        file.writelines(f"{line.replace('==', '!=', 1)}\n" for line in cpu_builds)
    try:
        return Resolution(_resolve_by_uv(requirements, python, replace(tool, say=_silence), {}), "uv")
    except ToolFailed:
        warning = f"Only a CPU build was found ({', '.join(cpu_builds)}): this GPU image won't use GPUs."
        return Resolution(packages, "uv", warnings=(warning,))


def _silence(_line: str) -> None:
    """For a try whose failure is no news."""


def _resolve_by_pip(requirements: Path, python: Path, tool: Tool, environment: Environment) -> Resolution:
    report = requirements.with_suffix(".json")
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report), "-r", str(requirements)]
    tool.run([*_pip(python), "install", *options], tool_environment())
    packages = pinned_by_report(json.loads(report.read_text()))
    has_cuda = environment.core_type == "CPU" and bool(cuda_packages(packages))
    return Resolution(packages, "pip", warnings=(_cuda_warning(packages),) if has_cuda else ())


def pinned_by_report(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The packages of an installation report of pip (PyPA specification "pip installation report", version 1), pinned."""
    packages: list[str] = []
    for item in cast("list[Mapping[str, Any]]", report["install"]):
        metadata = item["metadata"]
        address = str(item["download_info"]["url"])
        is_direct = bool(item.get("is_direct"))
        packages.append(
            f"{metadata['name']} @ {address}" if is_direct else f"{metadata['name']}=={metadata['version']}"
        )
    return tuple(packages)


def _pip(python: Path) -> list[str]:
    """The platform's pip, working on another environment (which may have none yet)."""
    return [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--no-input"]


def _cuda_warning(packages: Sequence[str]) -> str:
    return (
        f"Only a CUDA build was found ({', '.join(cuda_packages(packages)[:3])} …): it runs on the CPU too but takes gigabytes. "
        "Configure an index with CPU builds for pip or uv to avoid that."
    )
