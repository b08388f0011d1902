"""What an instance sees: the list of host paths and where they appear inside, turned into bubblewrap's arguments.

An allow-list from nothing: system directories and a few files of /etc read-only, the instance's own directories, the environment, and
what was asked for. Nothing else of the host exists inside. Pure: whether it works on this machine is found out by `isolation`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.compute.backends.local.child import (
    ARGUMENTS_DESCRIPTOR,
    IMAGE_FILES,
    STAGED,
    STAGED_IMAGE,
    STAGED_OPTIONAL,
    STAGED_SHARED,
    STATUS_DESCRIPTOR,
)

_ETC_FILES = (
    "ssl",
    "ca-certificates",
    "ca-certificates.conf",
    "pki",
    "resolv.conf",
    "hosts",
    "host.conf",
    "gai.conf",
    "nsswitch.conf",
    "localtime",
    "timezone",
    "services",
    "protocols",
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "fonts",
    "mime.types",
    "OpenCL",
)
_STAGE_DIRECTORIES = ("/mnt", "/media", "/srv", "/run", "/opt")
_GPU_HELPERS = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset", "/dev/nvidia-caps")


@dataclass(frozen=True, slots=True)
class Bind:
    """A host path and where it appears.

    Attributes:
        is_system: every user of the host can reach it, so it needs no staging.
        is_optional: left out where it is missing.
        is_shared: tenants may have left links in it.
        is_image: a file with a file system in it, which needs staging.
    """

    source: str
    target: str
    is_writable: bool = False
    is_device: bool = False
    is_system: bool = False
    is_optional: bool = False
    is_shared: bool = False
    is_image: bool = False


def system_arguments(system_directories: Sequence[str]) -> list[str]:
    """Arguments for the operating system: /usr and what belongs to it, files of /etc, /proc, a minimal /dev."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for directory in system_directories:
        if Path(directory).is_symlink():
            arguments += ["--symlink", str(Path(directory).readlink()), directory]
        elif Path(directory).is_dir():
            arguments += ["--ro-bind", directory, directory]
    arguments += ["--perms", "0755", "--dir", "/etc"]
    for name in _ETC_FILES:
        if Path(f"/etc/{name}").exists():
            arguments += ["--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    arguments += [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--dir",
        "/sys",
        "--ro-bind-try",
        "/sys/devices/system",
        "/sys/devices/system",
    ]
    arguments += ["--dir", "/run", "--symlink", "../run", "/var/run", "--symlink", "../tmp", "/var/tmp"]  # noqa: S108 - the inside's
    return arguments


def shared_memory_arguments(memory_bytes: int) -> list[str]:
    """A `/dev/shm` that is full before the instance's memory is: to end processes frees nothing of it, so that all of them would go."""
    size = memory_bytes * 3 // 4
    return ["--perms", "1777", "--size", str(size), "--tmpfs", "/dev/shm"]  # noqa: S108 - the instance's own


def root_arguments() -> list[str]:
    """Arguments more where bubblewrap is started by root and changes to no other account: files of /proc/sys are the machine root's to write,
    whatever rights it has given up."""
    return ["--ro-bind", "/proc/sys", "/proc/sys"]


def namespace_arguments(*, has_own_network: bool = False) -> list[str]:
    """Everything but the network is always the instance's own; no process inside gains privileges or makes namespaces in turn."""
    return [
        *(("--unshare-net",) if has_own_network else ()),
        *("--unshare-user", "--disable-userns", "--uid", "0", "--gid", "0"),
        *(
            "--cap-drop",
            "ALL",
        ),  # bubblewrap leaves them to root, which starts it where no account is taken for each workload
        *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--die-with-parent", "--new-session", "--json-status-fd", str(STATUS_DESCRIPTOR)),
    ]


def bind_arguments(binds: Iterable[Bind], stage_at: str | None) -> tuple[list[str], list[tuple[str, str]]]:
    """Arguments for these binds, and the sources to stage (none where `stage_at` is None): the n-th is `{stage_at}/{n}`."""
    arguments: list[str] = []
    staged: list[tuple[str, str]] = []
    for bind in binds:
        source = bind.source
        if stage_at is not None and not bind.is_system:
            source = f"{stage_at}/{len(staged)}"
            staged.append((bind.source, _trust(bind)))
        if bind.is_image:
            source += f"/{IMAGE_FILES}"
        option = "--dev-bind" if bind.is_device else "--bind" if bind.is_writable else "--ro-bind"
        arguments += [f"{option}-try" if bind.is_optional else option, source, bind.target]
    return arguments, staged


def _trust(bind: Bind) -> str:
    if bind.is_image:
        return STAGED_IMAGE
    return STAGED_OPTIONAL if bind.is_optional else STAGED_SHARED if bind.is_shared else STAGED


def environment_arguments(environment: Mapping[str, str]) -> list[str]:
    """Arguments that give the program exactly this environment."""
    return ["--clearenv", *(word for name, value in environment.items() for word in ("--setenv", name, value))]


def command_line(bwrap: str, program: Sequence[str]) -> list[str]:
    """Bubblewrap with its arguments behind a descriptor, where no other user's process list shows them."""
    return [bwrap, "--args", str(ARGUMENTS_DESCRIPTOR), "--", *program]


def stage_directory() -> str:
    """A directory that exists on this machine and that the child may cover with its stage, in its own mount namespace only."""
    return next((directory for directory in _STAGE_DIRECTORIES if Path(directory).is_dir()), "/tmp")  # noqa: S108 - a mount point


def interpreter_binds(python: Path, more: Iterable[str] = ()) -> list[Bind]:
    """The base interpreter of an environment, at its own path: the prefix of every link on the way from `python` to the real file.

    Nothing for what lies below /usr, which is seen anyway.
    """
    prefixes = list(more)
    hop = python
    for _ in range(40):
        if not hop.is_symlink():
            break
        hop = Path(os.path.normpath(hop.parent / hop.readlink()))
        if not hop.is_relative_to(python.parent.parent):
            prefixes.append(str(hop.parent.parent))
    prefixes.append(str(python.resolve().parent.parent))
    wanted = dict.fromkeys(prefix for prefix in prefixes if not is_seen(prefix) and Path(prefix).is_dir())
    covered = [
        prefix
        for prefix in wanted
        if not any(other != prefix and Path(prefix).is_relative_to(other) for other in wanted)
    ]
    return [Bind(prefix, prefix) for prefix in covered if prefix != "/"]


def gpu_binds(devices: Sequence[str]) -> list[Bind]:
    """Device files of these GPUs and those that the driver needs beside them."""
    if not devices:
        return []
    present = [path for path in _GPU_HELPERS if Path(path).exists()]
    return [Bind(path, path, is_writable=True, is_device=True, is_system=True) for path in [*devices, *present]]


def is_seen(path: str) -> bool:
    """Whether the inside has this host path already, as part of the system."""
    return path in {"/", "/usr"} or path.startswith(("/usr/", "/bin/", "/lib/", "/lib64/", "/sbin/")) or _is_etc(path)


def _is_etc(path: str) -> bool:
    parts = Path(path).parts
    return len(parts) > 2 and parts[1] == "etc" and parts[2] in _ETC_FILES
