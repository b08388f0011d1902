"""What running instances use: processor time, memory, disk, GPUs.

Processor time and memory are read from the instance's groups, or from its processes where it has none. The disk is walked in a thread of its own,
the less often the longer a walk takes, and in between the last answer stands. GPUs are NVIDIA's own tool to tell.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from modelyard.compute.backends.local import observing, planning, processes
from modelyard.compute.backends.local.usage import disk_bytes
from modelyard.compute.port import Use

_DISK_SECONDS = 10.0
_REST_FACTOR = 20.0
_GPU_SECONDS = 10.0
_WORKING_FILES = (planning.WORKSPACE_DIRECTORY, planning.HOME_DIRECTORY, planning.TEMPORARY_DIRECTORY)
_GPU_QUERY = ("nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used", "--format=csv,noheader,nounits")


@dataclass(slots=True)
class _Disk:
    """The last answer about an instance's disk, and when to ask again."""

    bytes: int | None = None
    due_at: float = 0.0
    walk: Future[None] | None = None


class Gauges:
    """Measures instances. Called from threads, by one caller at a time."""

    def __init__(self, gpu_query: Sequence[str] = _GPU_QUERY) -> None:
        self._disks: dict[str, _Disk] = {}
        self._walker = ThreadPoolExecutor(1, thread_name_prefix="disk-gauge")
        self._gpu_query = gpu_query

    def measure(self, ids: Sequence[str], directory_of: Callable[[str], Path]) -> list[Use]:
        """What those that run use now."""
        self._disks = {instance_id: disk for instance_id, disk in self._disks.items() if instance_id in set(ids)}
        gpus: dict[str, tuple[float, int]] | None = None
        found: list[Use] = []
        for instance_id in ids:
            directory = directory_of(instance_id)
            facts = observing.read_facts(directory)
            init_pid = observing.init_pid(directory)
            if facts is None or init_pid is None or observing.has_ended(directory):
                continue
            groups = facts.cgroups
            memory, cpu_seconds = groups.memory_bytes(), groups.cpu_seconds()
            if memory is None or cpu_seconds is None:
                tree = [init_pid, *processes.descendants(init_pid)]
                memory = processes.resident_bytes(tree) if memory is None else memory
                cpu_seconds = processes.cpu_seconds(tree) if cpu_seconds is None else cpu_seconds
            if facts.gpu_devices and gpus is None:
                gpus = _gpus(self._gpu_query)
            own = [gpus[device] for device in facts.gpu_devices if device in gpus] if gpus else []
            found.append(
                Use(
                    instance_id,
                    cpu_seconds,
                    memory,
                    self._disk(instance_id, directory),
                    sum(percent for percent, _ in own) if own else None,
                    sum(size for _, size in own) if own else None,
                )
            )
        return found

    def close(self) -> None:
        """Let go of the thread."""
        self._walker.shutdown(wait=False, cancel_futures=True)

    def _disk(self, instance_id: str, directory: Path) -> int | None:
        disk = self._disks.setdefault(instance_id, _Disk())
        is_walking = disk.walk is not None and not disk.walk.done()
        if not is_walking and time.monotonic() >= disk.due_at:
            disk.walk = self._walker.submit(_walk, disk, [str(directory / name) for name in _WORKING_FILES])
        return disk.bytes


def _walk(disk: _Disk, directories: Sequence[str]) -> None:
    began = time.monotonic()
    disk.bytes = sum(map(disk_bytes, directories))
    now = time.monotonic()
    disk.due_at = now + max(_DISK_SECONDS * 0.9, (now - began) * _REST_FACTOR)


def _gpus(query: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Load in percent and memory in bytes by device file; empty where the tool does not answer."""
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_GPU_SECONDS, check=False)  # our own words
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found: dict[str, tuple[float, int]] = {}
    for line in done.stdout.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and all(part.isdigit() for part in parts):
            found[f"/dev/nvidia{parts[0]}"] = (float(parts[1]), int(parts[2]) << 20)
    return found
