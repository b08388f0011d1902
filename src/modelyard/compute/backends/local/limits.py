"""Finds which control groups this machine lets the platform use, by really making one.

Looked for in this order: version 2 with the controllers it has, version 1 for the others. Groups are made at the top of what is
visible, unless the platform itself lives in a group with a limit on memory: then below that, so that the limit holds for all. What no
group limits is left to the supervisor's own look at memory and to process limits; the notes say so.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.compute.backends.local.cgroups import Cgroups

_LIMITING = ("memory", "cpu", "pids")
_V1_CONTROLLERS = (*_LIMITING, "cpuacct", "freezer")
_PROBE_MEMORY_BYTES = 64 << 20
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Place:
    """Where the platform itself stands in one hierarchy: the mount's directory, and its own group's directory at or below that."""

    top: str
    own: str


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The hierarchies that are mounted: version 1 by controller, and version 2."""

    v1: Mapping[str, Place]
    v2: Place | None

    def memory_limit_bytes(self) -> int | None:
        """The smallest memory limit that holds for the platform itself, None without one."""
        if "memory" in self.v1:
            return _smallest(self.v1["memory"], "memory.limit_in_bytes")
        return None if self.v2 is None else _smallest(self.v2, "memory.max")

    def cpu_limit(self) -> float | None:
        """The smallest number of processors that holds for the platform itself, None without a limit."""
        if "cpu" in self.v1:
            pairs = [
                _numbers(f"{group}/cpu.cfs_quota_us", f"{group}/cpu.cfs_period_us") for group in _chain(self.v1["cpu"])
            ]
        elif self.v2 is not None:
            pairs = [_numbers(f"{group}/cpu.max") for group in _chain(self.v2)]
        else:
            return None
        return min((quota / period for quota, period in filter(None, pairs)), default=None)


@dataclass(frozen=True, slots=True)
class GroupBases:
    """Directories below which instances' groups are made, and what is to be said about what they lack."""

    v1: Mapping[str, str] = field(default_factory=dict[str, str])
    v2: str | None = None
    v2_controllers: tuple[str, ...] = ()

    @property
    def directories(self) -> list[str]:
        """Every base directory."""
        return [*self.v1.values(), *filter(None, [self.v2])]

    def of(self, name: str) -> Cgroups:
        """The groups of the instance with this name."""
        v1 = {controller: f"{base}/{name}" for controller, base in self.v1.items()}
        return Cgroups(v1, f"{self.v2}/{name}" if self.v2 else None, self.v2_controllers)

    def notes(self) -> tuple[str, ...]:
        """What no group limits, for people."""
        groups = self.of("any")
        notes: list[str] = []
        if not groups.limits("memory"):
            notes.append(
                "Memory is watched, not limited: no memory control group can be used here, so a fast growth is seen late."
            )
        if not groups.limits("cpu"):
            notes.append("Processor time is not limited: no cpu control group can be used here.")
        if not groups.limits("pids"):
            notes.append("The number of processes is not limited by a control group here.")
        return tuple(notes)


def find_hierarchies(mounts: str | None = None, memberships: str | None = None) -> Hierarchies:
    """Read the mounts and the platform's own groups (`/proc/self/mountinfo` and `/proc/self/cgroup`, unless given)."""
    mounts = Path("/proc/self/mountinfo").read_text(errors="replace") if mounts is None else mounts
    memberships = Path("/proc/self/cgroup").read_text(errors="replace") if memberships is None else memberships
    own: dict[str, str] = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path
    v1: dict[str, Place] = {}
    v2: Place | None = None
    for line in mounts.splitlines():
        fields, _, tail = line.partition(" - ")
        root, top = fields.split()[3:5]
        kind, *_, options = tail.split()
        if kind == "cgroup2":
            v2 = _place(root, top, own.get("", "/"))
        elif kind == "cgroup":
            for controller in set(options.split(",")) & set(_V1_CONTROLLERS):
                v1[controller] = _place(root, top, own.get(controller, "/"))
    return Hierarchies(v1, v2)


def find_bases(hierarchies: Hierarchies, name: str) -> GroupBases:
    """Directories called `name` in every hierarchy that the platform may use; each was tried out."""
    v2, v2_controllers = (None, ()) if hierarchies.v2 is None else _v2_base(hierarchies.v2, name)
    if v2 is not None and not v2_controllers and "freezer" in hierarchies.v1:
        # It limits nothing and joining it takes 15 ms; version 1 can end a tree as well.
        remove_bases([v2])
        v2 = None
    v1: dict[str, str] = {}
    for controller, place in hierarchies.v1.items():
        if controller in v2_controllers:
            continue
        is_limited = controller == "memory" and _smallest(place, "memory.limit_in_bytes") is not None
        base = f"{place.own if is_limited else place.top}/{name}"
        if _works(GroupBases({controller: base})):
            v1[controller] = base
    return GroupBases(v1, v2, v2_controllers)


def group_name(root: Path) -> str:
    """The name of the groups below which the instances of the backend at `root` have theirs."""
    return f"modelyard-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"


def remove_bases(directories: Iterable[str]) -> bool:
    """Take base directories away; those in which an instance still is stay. Returns whether all are gone."""
    directories = list(directories)
    for directory in directories:
        with suppress(OSError):
            Path(directory).rmdir()
    return not any(Path(directory).exists() for directory in directories)


def _v2_base(place: Place, name: str) -> tuple[str | None, tuple[str, ...]]:
    is_limited = _smallest(place, "memory.max") is not None
    parents = [place.own] if is_limited or os.geteuid() != 0 else [place.top, place.own]
    for parent in parents:
        offered = set(_words(f"{parent}/cgroup.controllers"))
        wanted = tuple(controller for controller in _LIMITING if controller in offered)
        base = f"{parent}/{name}"
        if _enabled(parent, wanted, name) and _made(base) and _enabled(base, wanted, name):
            bases = GroupBases({}, base, wanted)
            if _works(bases):
                return base, wanted
    return None, ()


def _enabled(parent: str, controllers: tuple[str, ...], name: str) -> bool:
    missing = [controller for controller in controllers if controller not in _words(f"{parent}/cgroup.subtree_control")]
    if not missing:
        return True
    text = " ".join(f"+{controller}" for controller in missing)
    for _ in range(2):
        try:
            Path(f"{parent}/cgroup.subtree_control").write_text(text)
            return True
        except OSError as error:
            if error.errno != errno.EBUSY or not _moved_aside(parent, name):
                return False
    return False


def _moved_aside(parent: str, name: str) -> bool:
    """A group that hands out controllers may hold no processes of its own (version 2): put those that are there into a leaf."""
    leaf = f"{parent}/{name}-platform"
    if not _made(leaf):
        return False
    for pid in _words(f"{parent}/cgroup.procs"):
        with suppress(ProcessLookupError):
            try:
                Path(f"{leaf}/cgroup.procs").write_text(pid)
            except PermissionError:
                return False
    return not _words(f"{parent}/cgroup.procs")


def _works(bases: GroupBases) -> bool:
    probe = bases.of(f"probe-{os.getpid()}")
    try:
        probe.make(1.0, _PROBE_MEMORY_BYTES, 64)
    except OSError:
        return False
    finally:
        probe.remove(time.monotonic())
    return all(
        os.access(f"{directory}/cgroup.procs", os.W_OK) or os.geteuid() == 0 for directory in bases.of("").directories
    )


def _made(directory: str) -> bool:
    try:
        Path(directory).mkdir(exist_ok=True)
    except OSError:
        return False
    return True


def _place(root: str, top: str, own: str) -> Place:
    relative = own.removeprefix(root.rstrip("/")) if own.startswith(root) else ""
    directory = f"{top}{relative}".rstrip("/") or top
    return Place(top, directory if Path(directory).is_dir() else top)


def _chain(place: Place) -> list[str]:
    groups = [place.own]
    while groups[-1] != place.top and groups[-1].startswith(place.top):
        groups.append(str(Path(groups[-1]).parent))
    return groups


def _smallest(place: Place, file: str) -> int | None:
    limits = [int(word) for group in _chain(place) for word in _words(f"{group}/{file}")[:1] if word.isdigit()]
    return min((limit for limit in limits if limit < _UNLIMITED_BYTES), default=None)


def _numbers(*files: str) -> tuple[float, float] | None:
    words = [word for file in files for word in _words(file)]
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None
    return float(words[0]), float(words[1])


def _words(file: str) -> list[str]:
    try:
        return Path(file).read_text().split()
    except OSError:
        return []
