"""What of an `Instance` can never run, told all at once before anything is started."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

from modelyard.compute.backends.local.planning import Machine
from modelyard.compute.backends.local.settings import Isolation
from modelyard.compute.port import Command, Instance, LaunchRefused

_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")
_SOCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_VARIABLE = re.compile(r"[^=\0]+")
_RESERVED_TARGETS = (
    "/proc",
    "/dev",
    "/sys",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc",
    "/opt/environment",
    "/opt/modelyard",
    "/run/modelyard",
    "/var/cache/modelyard-data",
)
_MAX_ADDRESS_BYTES = 107


def is_instance_id(text: str) -> bool:
    """Whether this has the form of an instance's id; only then it can be part of a path."""
    return _ID.fullmatch(text) is not None


def check(instance: Instance, machine: Machine, gpu_count: int) -> None:
    """Raise `LaunchRefused` for what can never run, with all that is wrong about it."""
    faults: list[str] = []
    for name, value in (
        ("id", instance.id),
        ("workload_id", instance.workload_id),
        ("project_id", instance.project_id),
    ):
        if not _ID.fullmatch(value):
            faults.append(f"{name} '{value}' must have 1 to 100 characters of a-z, 0-9, '.' and '-'")
    limits = instance.limits
    if limits.cpus <= 0 or limits.memory_bytes <= 0 or limits.pids <= 0:
        faults.append("limits must be greater than zero")
    if limits.gpus > gpu_count:
        faults.append(f"it asks for {limits.gpus} GPUs and this machine has {gpu_count}")
    faults += [f"'{name}' can't be a socket's name" for name in instance.sockets if not _SOCKET.fullmatch(name)]
    faults += [f"'{name}' can't be a port's name" for name in instance.ports if not _SOCKET.fullmatch(name)]
    faults += [
        f"the socket's path {path} is longer than {_MAX_ADDRESS_BYTES} bytes: choose a shorter home directory"
        for path in machine.sockets(instance).values()
        if len(os.fsencode(path)) > _MAX_ADDRESS_BYTES
    ]
    faults += [fault for mount in instance.mounts if (fault := _mount_fault(mount.source, mount.target))]
    faults += [fault for volume in instance.volumes if (fault := _mount_fault("/volume", volume.target))]
    if instance.account is not None and not _ID.fullmatch(instance.account):
        faults.append(f"'{instance.account}' can't be an account's name")
    faults += [f"'{volume.id}' can't be a volume's id" for volume in instance.volumes if not _ID.fullmatch(volume.id)]
    if isinstance(instance.task, Command):
        faults += _command_faults(instance.task, instance)
    elif instance.environment is None:
        faults.append("a build needs an environment")
    if machine.settings.needs_isolation and machine.isolation is Isolation.NONE and isinstance(instance.task, Command):
        faults.append("this machine can't isolate workloads and the settings forbid to run them without")
    if faults:
        raise LaunchRefused("; ".join(faults).capitalize() + ".")


def _mount_fault(source: str, target: str) -> str | None:
    if not _is_plain_path(source) or source == "/":
        return f"'{source}' can't be mounted: it must be an absolute path without '..'"
    if not _is_plain_path(target) or target in {"/", "/opt", "/run", "/var", "/root", "/workspace"}:
        return f"nothing can be mounted at '{target}'"
    if any(target == reserved or target.startswith(f"{reserved}/") for reserved in _RESERVED_TARGETS):
        return f"nothing can be mounted at '{target}': that is the system's"
    return None


def _is_plain_path(path: str) -> bool:
    return path.startswith("/") and "\0" not in path and os.path.normpath(path) == path


def _command_faults(command: Command, instance: Instance) -> list[str]:
    faults: list[str] = []
    if not command.argv:
        faults.append("the command is empty")
    elif command.argv[0] == "{python}" and instance.environment is None:
        faults.append("{python} needs an environment")
    if any("\0" in text for text in (*command.argv, *command.env.values())):
        faults.append("arguments and variables must not contain NUL")
    faults += [f"'{name}' can't be a variable's name" for name in command.env if not _VARIABLE.fullmatch(name)]
    for name in command.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name or "\0" in name or name in {".", ""}:
            faults.append(f"'{name}' can't be a file's name")
    return faults
