"""GPUs of this machine.

NVIDIA's own tool tells most; where it is missing (a container without it) the device files tell at least that there are some. Nothing
found means that images for GPUs are not offered.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_DEVICE = re.compile(r"nvidia\d+")
_ASK_SECONDS = 20.0  # a driver that has to wake its cards takes several


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card: its index as CUDA counts, its name, and its memory in bytes (None where only the device file is known)."""

    index: int
    name: str
    memory_bytes: int | None = None


def find_gpus(devices: Path = Path("/dev"), tool: str | None = None) -> tuple[Gpu, ...]:
    """The NVIDIA GPUs of this machine, by index; empty where there is none.

    Args:
        devices: where device files are. `tool`: the path of `nvidia-smi`, by default the one on PATH.
    """
    found = _ask(tool or shutil.which("nvidia-smi"))
    if found:
        return found
    try:
        names = sorted(entry.name for entry in devices.iterdir() if _DEVICE.fullmatch(entry.name))
    except OSError:
        return ()
    indices = sorted(int(name.removeprefix("nvidia")) for name in names)
    return tuple(Gpu(index, "NVIDIA GPU") for index in indices)


def _ask(tool: str | None) -> tuple[Gpu, ...]:
    if tool is None:
        return ()
    command = [tool, "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return _parsed(done.stdout) if done.returncode == 0 else ()


def _parsed(listing: str) -> tuple[Gpu, ...]:
    """Read lines such as `0, NVIDIA A100-SXM4-40GB, 40960` (memory in MiB, or `[N/A]` where cards share the machine's)."""
    gpus: list[Gpu] = []
    for line in listing.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and parts[0].isdigit():
            memory = int(parts[2]) * 1024**2 if parts[2].isdigit() else None
            gpus.append(Gpu(int(parts[0]), parts[1], memory))
    return tuple(gpus)
