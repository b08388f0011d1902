"""The local backend: instances are processes of this machine, each under a supervisor of its own.

Everything that blocks (records on disk, starting a supervisor, deleting files) runs in a few threads; the event loop only waits. The
backend keeps nothing that it could not read again from disk: several of it may stand on one directory, one after the other or, as
in a restart that overlaps, at the same time.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from modelyard.compute.backends.local import (
    capacity,
    checks,
    introductions,
    launching,
    observing,
    output,
    planning,
    records,
    removal,
    runtime,
)
from modelyard.compute.backends.local.caches import Bounds, Caches, Item
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.compute.backends.local.gauges import Gauges
from modelyard.compute.backends.local.hints import HintListener
from modelyard.compute.backends.local.identities import Identities
from modelyard.compute.backends.local.isolation import PROBE_PREFIX, find_isolation
from modelyard.compute.backends.local.limits import GroupBases, find_bases, find_hierarchies, group_name, remove_bases
from modelyard.compute.backends.local.package_access import find_package_access
from modelyard.compute.backends.local.planning import Machine, Storages
from modelyard.compute.backends.local.settings import Isolation, LocalComputeSettings
from modelyard.compute.backends.local.volumes import VolumeStore, can_mount_images
from modelyard.compute.port import (
    TOLD,
    Build,
    Capacity,
    Environment,
    Instance,
    Listed,
    LogChunk,
    Observation,
    Peer,
    Phase,
    Use,
)
from modelyard.kit.errors import RetryLater

P = ParamSpec("P")
R = TypeVar("R")

_POLL_SECONDS = 0.02
_LAST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LocalInstance(Listed):
    """An instance in a list, with what `modelyard status` shows beside."""

    title: str
    supervisor_pid: int | None
    observation: Observation


class LocalCompute:
    """Runs instances on this machine (`Compute`, `HasCapacity` and `HoldsEnvironments` of the port).

    Args:
        root: directory of the backend, the platform's alone. It holds `instances`, `run`, `projects`, `identities` and `runtime`.
        environments: the environments of this machine.
        settings: see there.
    """

    def __init__(
        self, root: Path, environments: EnvironmentStore, settings: LocalComputeSettings | None = None
    ) -> None:
        self._root = root.absolute()
        self._environments = environments
        self._settings = settings or LocalComputeSettings()
        self._starter = launching.Starter()
        self._threads = ThreadPoolExecutor(self._settings.launch_threads, thread_name_prefix="compute")
        self._hints = HintListener(self._root)
        self._users = Identities(
            self._root / "identities" / "users", self._settings.first_uid, self._settings.identity_count
        )
        self._projects = Identities(
            self._root / "identities" / "projects", self._settings.first_gid, self._settings.identity_count
        )
        self._machine_lock = threading.Lock()
        self._machine: Machine | None = None
        self._volumes: VolumeStore | None = None
        self._notes: tuple[str, ...] = ()
        self._gpu_lock = threading.Lock()
        self._ended: dict[str, Observation] = {}
        self._gauges = Gauges()

    async def prepare(self) -> tuple[Isolation, tuple[str, ...]]:
        """Find out what this machine offers, which the first launch would do otherwise; answers the isolation and the notes about it."""
        machine = await self._run(self._found_machine)
        return machine.isolation, self._notes

    async def launch(self, instance: Instance) -> None:
        """See the port. Returns once the supervisor is on its own and has recorded itself."""
        await self._run(self._launch, instance)

    async def observe(self, ids: Sequence[str]) -> Sequence[Observation]:
        """See the port."""
        return await self._run(lambda: [self._observe(instance_id) for instance_id in ids])

    async def introduce(self, instance_id: str, peers: Sequence[Peer]) -> None:
        """See the port."""
        await self._run(self._introduce, instance_id, peers)

    async def tell(self, instance_id: str, role: str, title: str, text: str) -> None:
        """See the port."""
        await self._run(self._tell, instance_id, role, title, text)

    async def stop(self, instance_id: str, *, insist_after_seconds: float | None = None) -> None:
        """See the port."""
        await self._run(self._request_stop, instance_id, None, insist_after_seconds)

    async def remove(self, instance_id: str) -> None:
        """See the port."""
        await self._run(self._remove, instance_id)

    async def read_logs(self, instance_id: str, offset: int, limit_bytes: int) -> LogChunk:
        """See the port. An unknown instance's output is empty and at its end."""
        return await self._run(self._read_logs, instance_id, offset, limit_bytes)

    def watch(self) -> AsyncIterator[str]:
        """See the port."""
        return self._hints.listen()

    async def capacity(self) -> Capacity:
        """See the port."""
        return await self._run(lambda: capacity.measure(find_hierarchies(), self._settings))

    async def has_environment(self, environment: Environment) -> bool:
        """See the port."""
        return await self._run(self._environments.is_built, environment)

    async def remove_volume(self, volume_id: str) -> None:
        """See the port. The account of the same name is given back with it."""
        await self._run(self._remove_volume, volume_id)

    async def has_volume(self, volume_id: str) -> bool:
        """See the port."""
        return await self._run(self._has_volume, volume_id)

    async def trim_caches(self, bounds: Bounds, needed: Collection[str]) -> Sequence[Item]:
        """Take away what caches hold beyond their bounds and nothing uses; what went. `needed`: see `Caches.list`."""
        return await self._run(Caches(self._root, self._environments).trim, bounds, needed)

    async def measure(self, ids: Sequence[str]) -> Sequence[Use]:
        """See the port."""
        known = [instance_id for instance_id in ids if checks.is_instance_id(instance_id)]
        return await self._run(self._gauges.measure, known, self._directory)

    async def list_instances(self) -> Sequence[LocalInstance]:
        """See the port."""
        return await self._run(self._list)

    async def stop_all(self, deadline_seconds: float) -> int:
        """Stop everything, and kill what still runs after the deadline. Returns how many instances were ended; no process is left."""
        running = [each.id for each in await self._run(self._list) if each.observation.phase is not Phase.EXITED]
        for instance_id in running:
            await self._run(self._request_stop, instance_id, min(deadline_seconds, 1e9))
        await self._until_ended(running, deadline_seconds)
        for instance_id in running:
            await self._run(self._request_stop, instance_id, 0.0)
        if left := await self._until_ended(running, _LAST_SECONDS):
            for instance_id in left:
                await self._run(self._kill_supervisor, instance_id)
            await self._until_ended(left, _LAST_SECONDS)
        await self._run(self._forget_machine)
        return len(running)

    def close(self) -> None:
        """Let go of the threads. Instances go on."""
        self._gauges.close()
        self._threads.shutdown(wait=True)
        self._starter.close()

    async def _run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        def guarded() -> R:
            try:
                return work(*args, **kwargs)
            except OSError as error:  # a full disk, missing rights, no more processes: an administrator can cure it
                raise RetryLater(f"The local backend at {self._root} can't do its work: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded)

    async def _until_ended(self, ids: list[str], seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while True:
            seen = await self.observe(ids)
            left = [each.id for each in seen if each.phase in {Phase.STARTING, Phase.RUNNING}]
            if not left or time.monotonic() >= deadline:
                return left
            await asyncio.sleep(_POLL_SECONDS)

    def _found_machine(self) -> Machine:
        with self._machine_lock:
            if self._machine is None:
                self._machine = self._find_machine()
            return self._machine

    def _find_machine(self) -> Machine:
        for directory in (self._root, self._root / "instances", self._root / "runtime"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        removal.empty(self._root / "trash")
        for leftover in (self._root / "instances").glob(f"{PROBE_PREFIX}*"):
            with suppress(RetryLater):
                self._remove(leftover.name)
        groups = find_bases(find_hierarchies(), group_name(self._root)) if self._settings.has_cgroups else GroupBases()
        machine = Machine(
            root=self._root,
            settings=self._settings,
            environments=self._environments,
            runtime=runtime.install(self._root / "runtime"),
            packages=find_package_access(),
            isolation=Isolation.NONE,
            groups=groups,
        )
        isolation, note = find_isolation(machine, os.geteuid() == 0, self._launch_probe, self._remove_probe)
        self._notes = (*([note] if note else []), *groups.notes())
        return replace(machine, isolation=isolation)

    def _forget_machine(self) -> None:
        """Nothing runs any more: take the groups away, also those that another server made. A launch that comes makes them again."""
        known = [facts for directory in self._directories() if (facts := observing.read_facts(directory)) is not None]
        bases = {str(Path(group).parent) for facts in known for group in facts.cgroups.directories}
        with self._machine_lock:
            bases.update(self._machine.groups.directories if self._machine is not None else [])
            if remove_bases(bases):
                self._machine = None

    def _launch_probe(self, instance: Instance, machine: Machine) -> Path:
        directory = self._directory(instance.id)
        with launching.launch_lock(directory):
            self._start(instance, machine, directory)
        return directory

    def _remove_probe(self, directory: Path) -> None:
        self._remove(directory.name)

    def _launch(self, instance: Instance) -> None:
        machine = self._found_machine()
        checks.check(instance, machine, len(capacity.gpu_devices()))
        directory = self._directory(instance.id)
        with launching.launch_lock(directory):
            if not launching.is_launched(directory):
                self._start(instance, machine, directory)

    def _start(self, instance: Instance, machine: Machine, directory: Path) -> None:
        uid = gid = None
        if machine.isolation is Isolation.WORKLOAD_USER and not isinstance(instance.task, Build):
            uid = self._users.claim(instance.account or instance.workload_id)
            gid = self._projects.claim(instance.project_id)
        storages = self._open_storages(instance, directory, uid, gid)
        with self._gpu_lock:
            gpu_devices = self._free_gpus(instance.limits.gpus)
            plan = planning.make_plan(instance, machine, uid, gid, gpu_devices, storages)
            facts = observing.InstanceFacts(
                id=instance.id,
                workload_id=instance.workload_id,
                project_id=instance.project_id,
                role=instance.role,
                run_directory=plan["run_directory"],
                sockets=machine.sockets(instance),
                notes=() if isinstance(instance.task, Build) else self._notes,
                cgroups_v1=plan["cgroups_v1"],
                cgroup_v2=plan["cgroup_v2"],
                cgroup_v2_controllers=plan["cgroup_v2_controllers"],
                gpu_devices=tuple(gpu_devices),
                account=instance.account or "",
                environment=instance.environment.digest if instance.environment is not None else "",
                title=instance.title,
            )
            if gpu_devices:
                launching.write_facts(directory, facts)
        launching.start(directory, facts, plan, self._starter)

    def _open_storages(self, instance: Instance, directory: Path, uid: int | None, gid: int | None) -> Storages:
        size = instance.limits.storage_bytes if instance.boot_bytes is None else None
        if instance.boot_bytes is None and not instance.volumes and size is None:
            return Storages()
        store = self._volume_store()
        volumes = {
            volume.target: store.open(volume.id, volume.size_bytes, uid, gid)
            for volume in sorted(instance.volumes, key=lambda volume: volume.target)
        }
        boot = None if instance.boot_bytes is None else store.boot(directory, instance.boot_bytes, uid, gid)
        is_sandboxed = self._found_machine().isolation is Isolation.WORKLOAD_USER and not isinstance(
            instance.task, Build
        )
        workspace = store.scratch(directory, size) if size is not None and is_sandboxed else None
        return Storages(boot, volumes, workspace)

    def _volume_store(self) -> VolumeStore:
        """Found out once: whether storage has a file system of its own that holds to its size."""
        machine = self._found_machine()
        with self._machine_lock:
            if self._volumes is None:
                is_root = machine.isolation is Isolation.WORKLOAD_USER
                fault = can_mount_images(self._root) if is_root else "workloads have no user of their own"
                self._volumes = VolumeStore(self._root / "volumes", has_images=fault is None)
                if fault is not None:
                    self._notes = (*self._notes, f"Storage sizes are looked at now and then, not enforced: {fault}.")
            return self._volumes

    def _remove_volume(self, volume_id: str) -> None:
        self._volume_store().remove(volume_id, self._root / "trash")
        self._users.release(volume_id)  # the account of the same name has nothing left

    def _has_volume(self, volume_id: str) -> bool:
        return self._volume_store().exists(volume_id)

    def _free_gpus(self, count: int) -> list[str]:
        if not count:
            return []
        facts = [
            observing.read_facts(directory) for directory in self._directories() if not observing.has_ended(directory)
        ]
        taken = {device for each in facts if each is not None for device in each.gpu_devices}
        free = [device for device in capacity.gpu_devices() if device not in taken]
        if len(free) < count:
            raise RetryLater(f"{count} GPUs are wanted and {len(free)} are free.")
        return free[:count]

    def _observe(self, instance_id: str) -> Observation:
        if not checks.is_instance_id(instance_id):
            return Observation(instance_id, Phase.ABSENT)
        directory = self._directory(instance_id)
        if (ended := self._ended.get(instance_id)) is not None and directory.exists():
            return ended
        self._ended.pop(instance_id, None)
        seen = observing.observe(instance_id, directory, self._settings.report_limit_bytes)
        if seen.phase is Phase.EXITED and len(self._ended) < 10_000:
            self._ended[instance_id] = seen
            self._threads.submit(self._give_back, directory)
        return seen

    def _give_back(self, directory: Path) -> None:
        """Delete the working files of an instance that has ended; its output and its record stay."""
        trash = self._root / "trash"
        for name in planning.WORKING_FILES:
            with suppress(OSError):  # what can't be moved now goes with `remove`
                removal.put_aside(directory / name, trash)
        removal.empty(trash)

    def _introduce(self, instance_id: str, peers: Sequence[Peer]) -> None:
        facts = self._facts_of_live(self._directory(instance_id))
        if facts is not None:
            introductions.write(facts.run_directory, peers)

    def _tell(self, instance_id: str, role: str, title: str, text: str) -> None:
        directory = self._directory(instance_id)
        if not directory.exists():
            return
        with launching.launch_lock(directory):
            facts = self._facts_of_live(directory)
            if facts is None:
                return
            introductions.put(facts.run_directory, TOLD, text)
            if (facts.role, facts.title) != (role, title):
                launching.write_facts(directory, replace(facts, role=role, title=title))

    def _facts_of_live(self, directory: Path) -> observing.InstanceFacts | None:
        facts = observing.read_facts(directory)
        is_live = launching.is_launched(directory) and not observing.has_ended(directory)
        return facts if is_live else None

    def _request_stop(
        self, instance_id: str, grace_seconds: float | None, insist_after_seconds: float | None = None
    ) -> None:
        directory = self._directory(instance_id)
        if not launching.is_launched(directory) or observing.has_ended(directory):
            return
        if grace_seconds is None and insist_after_seconds is None and (directory / records.STOP).exists():
            return
        words = ("-" if seconds is None else f"{seconds}" for seconds in (grace_seconds, insist_after_seconds))
        try:
            records.write_whole(str(directory / records.STOP), " ".join(words).encode(), is_durable=False)
        except FileNotFoundError:
            return  # It was removed meanwhile.

    def _remove(self, instance_id: str) -> None:
        directory = self._directory(instance_id)
        if not directory.exists():
            return
        with launching.launch_lock(directory):
            phase = observing.observe(instance_id, directory, 0).phase
            if phase in {Phase.STARTING, Phase.RUNNING}:
                raise RetryLater(f"'{instance_id}' still runs.")
            facts = observing.read_facts(directory)
            trash = self._root / "trash"
            if facts is not None:
                removal.put_aside(Path(facts.run_directory), trash)
            removal.put_aside(directory, trash)
        self._ended.pop(instance_id, None)
        removal.empty(trash)
        if facts is not None and not facts.account and not self._has_instances(facts.workload_id):
            self._users.release(facts.workload_id)

    def _has_instances(self, workload_id: str) -> bool:
        facts = map(observing.read_facts, self._directories())
        return any(each is not None and each.workload_id == workload_id for each in facts)

    def _read_logs(self, instance_id: str, offset: int, limit_bytes: int) -> LogChunk:
        directory = self._directory(instance_id)
        has_ended = observing.has_ended(directory) or not launching.is_launched(directory)
        logs = str(directory / records.LOGS)
        first, data = output.read_output(logs, offset, limit_bytes)
        end = output.output_end(logs)
        if not data and first > end:
            first = end  # asked beyond the end: that is where it goes on
        next_offset = first + len(data)
        return LogChunk(first, data, next_offset, is_end=has_ended and next_offset >= end)

    def _list(self) -> list[LocalInstance]:
        found: list[LocalInstance] = []
        for directory in self._directories():
            facts = observing.read_facts(directory)
            seen = self._observe(directory.name)
            if facts is None or seen.phase is Phase.ABSENT:
                continue
            pid = observing.supervisor_pid(directory) if seen.phase is not Phase.EXITED else None
            with suppress(FileNotFoundError):  # removed meanwhile
                launched_at = observing.launched_at(directory)
                names = (facts.id, facts.workload_id, facts.project_id, facts.role)
                found.append(LocalInstance(*names, seen.phase, launched_at, facts.title, pid, seen))
        return found

    def _kill_supervisor(self, instance_id: str) -> None:
        directory = self._directory(instance_id)
        if observing.is_supervised(directory) and (pid := observing.supervisor_pid(directory)) is not None:
            os.kill(pid, 9)

    def _directories(self) -> list[Path]:
        instances = self._root / "instances"
        return sorted(instances.iterdir()) if instances.is_dir() else []

    def _directory(self, instance_id: str) -> Path:
        if not checks.is_instance_id(instance_id):
            raise ValueError(f"'{instance_id}' can't be an instance's id")
        return self._root / "instances" / instance_id
