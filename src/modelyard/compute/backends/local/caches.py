"""What is kept so that it need not be made or fetched again, and what of it may go: environments, requirement layers, fetched data.

Everything here can be made again. What something uses is never taken: an environment that an instance runs in or that a workload waits for, the
layer of a running instance, and what was used within the last hour. (Data that is read while it goes is read to its end.) A store of
environments that the home only links to belongs to others too and is left alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from modelyard.compute.backends.local import datacache, observing, removal
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.compute.backends.local.usage import disk_bytes

RECENT_SECONDS = 3600.0
_FULLNESS_AFTER = 0.9


class CacheKind(StrEnum):
    """What is kept."""

    ENVIRONMENTS = "environments"
    LAYERS = "layers"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is kept.

    Attributes:
        project_id: whose it is; empty for environments, which all share.
        used_at: when it was last needed, seconds since 1970.
        held_by: why it can't go now; empty when it can.
    """

    kind: CacheKind
    project_id: str
    name: str
    title: str
    size_bytes: int
    used_at: float
    held_by: str


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large the caches may get, in bytes: environments in all, layers and data for each project. None for no bound."""

    environments_bytes: int | None = None
    layers_bytes: int | None = None
    data_bytes: int | None = None


class Caches:
    """The caches of one machine.

    Args:
        root: the local backend's directory.
    """

    def __init__(self, root: Path, environments: EnvironmentStore) -> None:
        self._root = root
        self._environments = environments

    def list(self, needed: Collection[str] = ()) -> Sequence[Item]:
        """Everything that is kept, what was used longest ago first. `needed`: digests of environments that workloads wait for."""
        live = [facts for facts in self._live() if facts is not None]
        layers = {name for facts in live if (name := self._layer_of(facts.id))}
        items = [*self._environment_items({*needed, *(facts.environment for facts in live)})]
        for project in self._projects():
            items += self._layer_items(project, layers)
            items += _data_items(project)
        return sorted(items, key=lambda item: item.used_at)

    def trim(self, bounds: Bounds, needed: Collection[str] = ()) -> Sequence[Item]:
        """Take away what was not used for the longest time where there is more than the bounds allow; what went."""
        items = self.list(needed)
        gone: list[Item] = []
        for kind, bound in (
            (CacheKind.ENVIRONMENTS, bounds.environments_bytes),
            (CacheKind.LAYERS, bounds.layers_bytes),
            (CacheKind.DATA, bounds.data_bytes),
        ):
            for project in {item.project_id for item in items if item.kind is kind} if bound is not None else ():
                of_one = [item for item in items if item.kind is kind and item.project_id == project]
                gone += self._trim_one(of_one, bound or 0)
        return gone

    def prune(
        self, kinds: Collection[CacheKind], unused_seconds: float, needed: Collection[str] = (), *, is_dry: bool = False
    ) -> Sequence[Item]:
        """Take away everything of these kinds that was not used for so long and that nothing holds; what went, or would go."""
        deadline = time.time() - unused_seconds
        chosen = [
            item for item in self.list(needed) if item.kind in kinds and not item.held_by and item.used_at <= deadline
        ]
        return chosen if is_dry else [item for item in chosen if self._remove(item)]

    def _trim_one(self, items: Sequence[Item], bound: int) -> Iterator[Item]:
        excess = sum(item.size_bytes for item in items) - bound
        if excess <= 0:
            return
        excess += int(bound * (1 - _FULLNESS_AFTER))
        for item in items:
            if excess <= 0:
                return
            is_recent = time.time() - item.used_at < RECENT_SECONDS and item.kind is not CacheKind.DATA
            if not item.held_by and not is_recent and self._remove(item):
                excess -= item.size_bytes
                yield item

    def _environment_items(self, used: Collection[str]) -> Iterator[Item]:
        is_shared = self._environments.root.is_symlink()
        for facts in self._environments.list_built():
            held = (
                "it belongs to a store that others use too" if is_shared else "in use" if facts.digest in used else ""
            )
            used_at = self._environments.used_at(facts)
            yield Item(CacheKind.ENVIRONMENTS, "", facts.digest, facts.name, facts.size_bytes, used_at, held)

    def _layer_items(self, project: Path, used: Collection[str]) -> Iterator[Item]:
        try:
            directory = os.open(
                project / "cache" / "layers", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
        except OSError:
            return
        try:
            for name in os.listdir(directory):  # noqa: PTH208 - of a descriptor
                if len(name) != 64 or not name.isalnum():  # a lock, or one that is being built
                    continue
                with suppress(OSError):
                    seen = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    size = disk_bytes(str(project / "cache" / "layers" / name))
                    held = "in use" if name in used else ""
                    yield Item(CacheKind.LAYERS, project.name, name, "requirements", size, seen.st_mtime, held)
        finally:
            os.close(directory)

    def _remove(self, item: Item) -> bool:
        match item.kind:
            case CacheKind.ENVIRONMENTS:
                return self._environments.remove_unused(item.name, item.used_at)
            case CacheKind.LAYERS:
                return self._remove_layer(item)
            case CacheKind.DATA:
                md5, _, size = item.name.partition(".")
                entries = self._root / "projects" / item.project_id / "data" / datacache.ENTRIES
                with suppress(OSError):
                    Path(datacache.entry_path(str(entries), md5, int(size))).unlink()
                    return True
                return False

    def _remove_layer(self, item: Item) -> bool:
        """Move it away before it is deleted; by descriptors, since workloads may write to the directory that it is in."""
        trash = self._root / "trash"
        trash.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self._root / "projects" / item.project_id / "cache" / "layers"
        try:
            source = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.rename(item.name, f"{trash}/{item.name}.{time.time_ns():x}", src_dir_fd=source)
        except OSError:
            return False
        finally:
            os.close(source)
        removal.empty(trash)
        return True

    def _live(self) -> Iterator[observing.InstanceFacts | None]:
        instances = self._root / "instances"
        for directory in sorted(instances.iterdir()) if instances.is_dir() else ():
            if not observing.has_ended(directory):
                yield observing.read_facts(directory)

    def _layer_of(self, instance_id: str) -> str:
        try:
            return (self._root / "instances" / instance_id / datacache.LAYER_IN_USE).read_text(encoding="ascii")
        except OSError:
            return ""

    def _projects(self) -> Sequence[Path]:
        projects = self._root / "projects"
        return sorted(projects.iterdir()) if projects.is_dir() else ()


def _data_items(project: Path) -> Iterator[Item]:
    for entry in datacache.list_entries(str(project / "data")):
        name = Path(entry["path"]).name
        yield Item(CacheKind.DATA, project.name, name, "fetched", entry["size"], entry["used_at"], "")
