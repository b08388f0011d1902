"""From an `Instance` to the supervisor's plan: checks what is asked, and says where everything lies.

An instance sees the same paths in every sandbox. In a plain process (no sandbox is possible) these paths don't exist; then
`MODELYARD_ROOT` names a directory with links in it such that `$MODELYARD_ROOT/workspace` is what `/workspace` would be, and
the port's marks (`WORKSPACE`, `RUN` …) in arguments, environment and files stand for the real paths everywhere.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import modelyard
from modelyard.compute.backends.local import records, sandbox
from modelyard.compute.backends.local.child import STAGED
from modelyard.compute.backends.local.datacache import ENTRIES
from modelyard.compute.backends.local.environments import EnvironmentStore, spec_json
from modelyard.compute.backends.local.hints import NAME as HINTS_NAME
from modelyard.compute.backends.local.limits import GroupBases
from modelyard.compute.backends.local.package_access import PackageAccess
from modelyard.compute.backends.local.runtime import Runtime
from modelyard.compute.backends.local.sandbox import Bind
from modelyard.compute.backends.local.settings import Isolation, LocalComputeSettings
from modelyard.compute.backends.local.volumes import WORKSPACE_IMAGE, Storage
from modelyard.compute.port import CACHE, DATA, LIBRARY, ROOT, RUN, WORKSPACE, Build, Command, Instance, LaunchRefused
from modelyard.kit.errors import RetryLater

if TYPE_CHECKING:
    from modelyard.compute.backends.local.records import Plan, RelayPlan

_PATH = "/opt/environment/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT_DIRECTORIES = ("--perms", "0700", "--dir", "/root", "--perms", "1777", "--dir", "/tmp", "--dir", "/workspace")  # noqa: S108 - the instance's own
_SHARED_MODE, _CACHE_MODE, _OWN_MODE, _TEMPORARY_MODE = 0o2770, 0o3770, 0o2770, 0o1777


WORKSPACE_DIRECTORY = "workspace"
HOME_DIRECTORY = "home"
TEMPORARY_DIRECTORY = "tmp"
WORKING_FILES = (WORKSPACE_DIRECTORY, HOME_DIRECTORY, TEMPORARY_DIRECTORY, "boot", "boot.image", WORKSPACE_IMAGE)
"""What an instance leaves in its directory that nobody needs once it has ended."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the parts of one instance lie on the host."""

    directory: Path
    run: Path
    cache: Path
    data: Path

    @property
    def entries(self) -> Path:
        """Seen as /var/cache/modelyard-data."""
        return self.data / ENTRIES

    @property
    def workspace(self) -> Path:
        """Seen as /workspace."""
        return self.directory / WORKSPACE_DIRECTORY

    @property
    def home(self) -> Path:
        """Seen as /root."""
        return self.directory / HOME_DIRECTORY

    @property
    def temporary(self) -> Path:
        """Seen as /tmp."""
        return self.directory / TEMPORARY_DIRECTORY

    @property
    def links(self) -> Path:
        """MODELYARD_ROOT of a plain process."""
        return self.directory / "root"


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found out about this machine, and what everything needs."""

    root: Path
    settings: LocalComputeSettings
    environments: EnvironmentStore
    runtime: Runtime
    packages: PackageAccess
    isolation: Isolation
    groups: GroupBases

    def place(self, instance_id: str, project_id: str) -> Place:
        """Where an instance lies. Its run directory has a short name of its own: addresses of sockets are short."""
        short = hashlib.sha256(instance_id.encode()).hexdigest()[:12]
        return Place(
            self.root / "instances" / instance_id,
            self.root / "run" / short,
            self.root / "projects" / project_id / "cache",
            self.root / "projects" / project_id / "data",
        )

    def sockets(self, instance: Instance) -> dict[str, str]:
        """Names of the instance's sockets → paths on the host."""
        run = self.place(instance.id, instance.project_id).run
        return {name: f"{run}/{name}.sock" for name in instance.sockets}


@dataclass(frozen=True, slots=True)
class Storages:
    """What an instance has beside its own directories: the root of its file system, volumes by where it sees them, and its workspace where
    that is a file system of its own."""

    boot: Storage | None = None
    volumes: Mapping[str, Storage] = field(default_factory=dict[str, Storage])
    workspace: Storage | None = None

    @property
    def directories(self) -> list[str]:
        """What has to be measured, because no file system holds to its size."""
        every = [*self.volumes.values(), *([self.boot] if self.boot else [])]
        return [str(storage.path) for storage in every if not storage.is_image]


def make_plan(
    instance: Instance,
    machine: Machine,
    uid: int | None,
    gid: int | None,
    gpu_devices: list[str],
    storages: Storages | None = None,
) -> Plan:
    """The plan. Raises `RetryLater` while the environment is not built."""
    storages = storages or Storages()
    place = machine.place(instance.id, instance.project_id)
    settings = machine.settings
    groups = machine.groups.of(instance.id)
    is_plain = machine.isolation is Isolation.NONE or isinstance(instance.task, Build)
    if is_plain:
        uid = gid = None
    plan: Plan = {
        "id": instance.id,
        "argv": [],
        "sandbox_arguments": [],
        "env": {},
        "cwd": str(place.workspace),
        "directories": _directories(machine, place, uid, gid),
        "shared_directories": [mount.source for mount in instance.mounts if not mount.read_only],
        "files": [],
        "uid": uid,
        "gid": gid,
        "stage": [],
        "stage_at": "",
        "has_guard": is_plain,
        "cgroups_v1": groups.v1,
        "cgroup_v2": groups.v2,
        "cgroup_v2_controllers": groups.v2_controllers,
        "cpus": instance.limits.cpus,
        "memory_bytes": instance.limits.memory_bytes,
        # A system of somebody's own has many programs: the one that takes too much memory goes alone.
        "ends_as_one": instance.ends_as_one and instance.boot_bytes is None,
        "pids": instance.limits.pids,
        "storage_bytes": _measured_bytes(instance),
        "storage_directories": [
            *storages.directories,
            *(str(path) for path in (place.workspace, place.home, place.temporary, place.run)),
        ],
        "storage_interval_seconds": settings.storage_interval_seconds,
        "run_directory": str(place.run),
        "ports": list(instance.ports),
        "grace_seconds": instance.grace_seconds,
        "timeout_seconds": instance.timeout_seconds,
        "segment_bytes": settings.output_segment_bytes,
        "segment_count": settings.output_segment_count,
        "hints_directory": str(machine.root),
        "hints_name": HINTS_NAME,
    }
    if settings.data_cache_bytes:
        plan["data_cache"] = {
            "directory": str(place.data),
            "limit_bytes": settings.data_cache_bytes,
            "layers": str(place.cache / "layers"),
        }
    if isinstance(instance.task, Build):
        _plan_build(plan, instance, machine, place)
    elif is_plain:
        _plan_plain(plan, instance, instance.task, machine, place, storages)
    else:
        _plan_sandbox(plan, instance, instance.task, machine, place, gpu_devices, storages)
        if instance.has_own_network:
            plan["relay"] = _relay(instance, machine, place)
    return plan


def _measured_bytes(instance: Instance) -> int | None:
    """What all that is measured may take together. Storage whose file system holds to its size takes none of it."""
    if instance.boot_bytes is None:
        return instance.limits.storage_bytes
    return instance.boot_bytes + sum(volume.size_bytes for volume in instance.volumes)


def _relay(instance: Instance, machine: Machine, place: Place) -> RelayPlan:
    return {
        "socket": f"{place.run}/relay.sock",
        "doors": list(instance.doors),
        "names": dict(instance.door_names),
        "allowed": machine.packages.local_hosts(),
    }


def _plan_build(plan: Plan, instance: Instance, machine: Machine, place: Place) -> None:
    if instance.environment is None:
        raise LaunchRefused("A build needs an environment.")
    spec = f"{place.run}/environment.json"
    plan["files"] = [(spec, spec_json(instance.environment))]
    plan["argv"] = [
        *(sys.executable, "-m", "modelyard.compute.backends.local.build"),
        *("--spec", spec, "--root", str(machine.environments.root), "--report", f"{place.run}/{records.REPORT}"),
    ]
    plan["env"] = {
        **machine.packages.variables,
        "HOME": str(Path.home()),
        "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "TMPDIR": str(place.temporary),
        "PYTHONPATH": str(Path(modelyard.__file__).parent.parent),
        "PYTHONUNBUFFERED": "1",
        "MODELYARD_ROOT": str(place.links),
    }


def _plan_plain(
    plan: Plan, instance: Instance, command: Command, machine: Machine, place: Place, storages: Storages
) -> None:
    environment = _built_environment(instance, command, machine)
    real = {
        WORKSPACE: str(place.workspace),
        RUN: str(place.run),
        CACHE: str(place.cache),
        DATA: str(place.entries),
        LIBRARY: str(machine.runtime.package_root),
        ROOT: str(place.links),
    }
    path = f"{environment}/bin:{_SYSTEM_PATH}" if environment else _SYSTEM_PATH
    variables = _variables(
        command, machine, str(machine.runtime.package_root), path, str(place.home), str(place.temporary)
    )
    variables["MODELYARD_ROOT"] = str(place.links)
    _fill(plan, command, variables, f"{environment}/bin/python", real, place)
    links = {
        "workspace": str(place.workspace),
        "run/modelyard": str(place.run),
        "var/cache/modelyard": str(place.cache),
        "var/cache/modelyard-data": str(place.entries),
        "root": str(place.home),
        "tmp": str(place.temporary),
        "opt/modelyard/lib": str(machine.runtime.package_root),
        **({"opt/environment": str(environment)} if environment else {}),
        **{target.lstrip("/"): str(storage.path) for target, storage in storages.volumes.items()},
        **{mount.target.lstrip("/"): mount.source for mount in instance.mounts},
    }
    plan["links"] = [(f"{place.links}/{name}", target) for name, target in links.items()]


def _plan_sandbox(
    plan: Plan,
    instance: Instance,
    command: Command,
    machine: Machine,
    place: Place,
    gpu_devices: list[str],
    storages: Storages,
) -> None:
    environment = _built_environment(instance, command, machine)
    inside = {
        WORKSPACE: "/workspace",
        RUN: "/run/modelyard",
        CACHE: "/var/cache/modelyard",
        DATA: "/var/cache/modelyard-data",
        LIBRARY: "/opt/modelyard/lib",
        ROOT: "",
    }
    variables = _variables(command, machine, "/opt/modelyard/lib", _PATH, "/root", "/tmp")  # noqa: S108 - the instance's own
    _fill(plan, command, variables, "/opt/environment/bin/python", inside, place)
    stage_at = sandbox.stage_directory() if machine.isolation is Isolation.WORKLOAD_USER else None
    root = [_storage_bind(storages.boot, "/")] if storages.boot else []
    binds = [*root, *_binds(instance, machine, place, environment, gpu_devices, storages)]
    bind_arguments, staged = sandbox.bind_arguments(binds, stage_at)
    root_arguments, bind_arguments = bind_arguments[: 3 * len(root)], bind_arguments[3 * len(root) :]
    bwrap = str(machine.runtime.bwrap)
    if stage_at is not None and machine.runtime.bwrap_root is not None:
        bwrap = bwrap.replace(str(machine.runtime.bwrap_root), f"{stage_at}/{len(staged)}", 1)
        staged.append((str(machine.runtime.bwrap_root), STAGED))
    plan["stage"] = staged
    plan["stage_at"] = stage_at or ""
    plan["sandbox_arguments"] = [
        *sandbox.namespace_arguments(has_own_network=instance.has_own_network),
        *root_arguments,
        *sandbox.system_arguments(machine.settings.system_directories),
        *sandbox.shared_memory_arguments(instance.limits.memory_bytes),
        *(sandbox.root_arguments() if machine.isolation is Isolation.NAMESPACES and os.geteuid() == 0 else ()),
        *(_BOOT_DIRECTORIES if storages.boot else ()),
        *bind_arguments,
        *("--chdir", "/workspace"),
        *sandbox.environment_arguments(plan["env"]),
    ]
    plan["argv"] = sandbox.command_line(bwrap, plan["argv"])


def _storage_bind(storage: Storage, target: str) -> Bind:
    return Bind(str(storage.path), target, is_writable=True, is_image=storage.is_image)


def _binds(
    instance: Instance,
    machine: Machine,
    place: Place,
    environment: Path | None,
    gpu_devices: list[str],
    storages: Storages,
) -> list[Bind]:
    # The instance's own first: what is shown below /root or /tmp must not be hidden by them.
    own = [
        Bind(str(place.home), "/root", is_writable=True),
        _storage_bind(storages.workspace or Storage(place.workspace, is_image=False), "/workspace"),
        Bind(str(place.temporary), "/tmp", is_writable=True),  # noqa: S108 - the instance's own
        Bind(str(place.cache), "/var/cache/modelyard", is_writable=True),
        Bind(str(place.entries), "/var/cache/modelyard-data"),
    ]
    binds = [
        # What has a root of its own shares nothing with the rest of its project either.
        *(own if storages.boot is None else ()),
        Bind(str(place.run), "/run/modelyard", is_writable=True),
        Bind(str(machine.runtime.etc / "passwd"), "/etc/passwd"),
        Bind(str(machine.runtime.etc / "group"), "/etc/group"),
        Bind(str(machine.runtime.package_root), "/opt/modelyard/lib"),
    ]
    if environment is not None and instance.environment is not None:
        facts = machine.environments.facts(instance.environment)
        more = (facts.base_prefix, *facts.library_directories) if facts else ()
        binds += sandbox.interpreter_binds(environment / "bin" / "python", more)
        binds.append(Bind(str(environment), "/opt/environment"))
    binds += [_storage_bind(storage, target) for target, storage in storages.volumes.items()]
    binds += [Bind(path, path, is_optional=True) for path in machine.packages.paths if not sandbox.is_seen(path)]
    mounts = sorted(instance.mounts, key=lambda mount: mount.target)
    binds += [Bind(mount.source, mount.target, is_writable=not mount.read_only, is_shared=True) for mount in mounts]
    return binds + sandbox.gpu_binds(gpu_devices)


def _built_environment(instance: Instance, command: Command, machine: Machine) -> Path | None:
    if instance.environment is None:
        return None
    if not machine.environments.is_built(instance.environment):
        raise RetryLater(f"The environment '{instance.environment.name}' is not built yet.")
    machine.environments.note_use(instance.environment)
    machine.runtime.compile_for(machine.environments.python(instance.environment))
    return machine.environments.path(instance.environment)


def _variables(
    command: Command, machine: Machine, library: str, path: str, home: str, temporary: str
) -> dict[str, str]:
    variables = {
        **machine.packages.variables,
        "HOME": home,
        "PATH": path,
        "LANG": "C.UTF-8",
        "TMPDIR": temporary,
        **command.env,
    }
    variables["PYTHONPATH"] = ":".join(filter(None, (library, command.env.get("PYTHONPATH"))))
    return variables


def _fill(
    plan: Plan, command: Command, variables: Mapping[str, str], python: str, places: Mapping[str, str], place: Place
) -> None:
    def filled(text: str) -> str:
        for placeholder, path in places.items():
            text = text.replace(placeholder, path)
        return text

    first, *rest = command.argv
    plan["argv"] = [python if first == "{python}" else filled(first), *map(filled, rest)]
    plan["env"] = {name: filled(value) for name, value in variables.items()}
    plan["files"] = [(f"{place.run}/{name}", filled(text)) for name, text in command.files.items()]
    parents = {str(parent) for name in command.files for parent in PurePosixPath(name).parents if str(parent) != "."}
    user, group = (-1, -1) if plan["uid"] is None or plan["gid"] is None else (plan["uid"], plan["gid"])
    plan["directories"] += [(f"{place.run}/{parent}", 0o770, user, group) for parent in sorted(parents)]


def _directories(machine: Machine, place: Place, uid: int | None, gid: int | None) -> list[tuple[str, int, int, int]]:
    user, group = (-1, -1) if uid is None or gid is None else (uid, gid)
    return [
        (str(machine.root / "run"), 0o700, -1, -1),
        (str(machine.root / "projects"), 0o700, -1, -1),
        (str(place.cache.parent), 0o700, -1, -1),
        (str(place.data), 0o700, -1, -1),
        (str(place.entries), 0o755, -1, -1),
        (str(place.cache), _CACHE_MODE, 0 if user != -1 else -1, group),
        (str(place.workspace), _OWN_MODE, user, group),
        (str(place.home), 0o700, user, group),
        (str(place.run), 0o770, user, group),
        (str(place.temporary), _TEMPORARY_MODE, user, group),
    ]
