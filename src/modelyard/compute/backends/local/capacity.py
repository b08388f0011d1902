"""What this machine can give to instances in all."""

from __future__ import annotations

import os
import re
from pathlib import Path

from modelyard.compute.backends.local.limits import Hierarchies
from modelyard.compute.backends.local.settings import LocalComputeSettings
from modelyard.compute.port import Capacity

_GPU = re.compile(r"nvidia\d+")


def measure(hierarchies: Hierarchies, settings: LocalComputeSettings) -> Capacity:
    """Memory and processors that the platform itself may use, less the reserves; never below zero."""
    memory_bytes = min(total_memory_bytes(), hierarchies.memory_limit_bytes() or total_memory_bytes())
    cpus = float(len(os.sched_getaffinity(0)))
    cpus = min(cpus, hierarchies.cpu_limit() or cpus)
    return Capacity(
        cpus=max(cpus - settings.cpu_reserve, 0.0),
        memory_bytes=max(memory_bytes - settings.memory_reserve_bytes, 0),
        gpus=len(gpu_devices()),
    )


def total_memory_bytes(text: str | None = None) -> int:
    """The machine's memory (`/proc/meminfo`, unless its text is given), in bytes."""
    text = Path("/proc/meminfo").read_text() if text is None else text
    for line in text.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise ValueError("/proc/meminfo has no line MemTotal")


def gpu_devices() -> list[str]:
    """Device files of the machine's NVIDIA GPUs, in their order."""
    names = [name for name in os.listdir("/dev") if _GPU.fullmatch(name)]  # noqa: PTH208 - names, not paths, are wanted
    return [f"/dev/{name}" for name in sorted(names, key=lambda name: int(name[6:]))]
