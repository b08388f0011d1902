"""Launch → first line of a script: through the local backend, beside a bare subprocess and a bare bubblewrap in the same run.

    python bench/launch.py [--count 40]

The three take turns, so that load on the machine meets all of them alike. Target: the backend adds at most 60 ms (p50) to the bare
subprocess. The clock starts before the launch and stops at the time that the script itself prints (one clock for all processes).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from modelyard.compute.backends.local.backend import LocalCompute
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.compute.backends.local.runtime import install
from modelyard.compute.port import Command, Instance, Limits

_SCRIPT = "import time; print(time.clock_gettime_ns(time.CLOCK_MONOTONIC), flush=True)"
_PROGRAM = ("/usr/bin/python3", "-c", _SCRIPT)
_TARGET_MILLISECONDS = 60.0


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40, help="how many launches of each kind")
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as directory:
        root = Path(directory)
        compute = LocalCompute(root / "compute", EnvironmentStore(root / "environments"))
        isolation, notes = await compute.prepare()
        runtime = install(root / "runtime")
        kinds: dict[str, list[float]] = {
            "subprocess": [],
            "bubblewrap": [],
            "backend": [],
            "backend, launch() returned": [],
        }
        for number in range(count):
            kinds["subprocess"].append(_bare(_PROGRAM))
            kinds["bubblewrap"].append(_bare((str(runtime.bwrap), *_bwrap_arguments(), *_PROGRAM)))
            first_line, returned = await _backend(compute, number)
            kinds["backend"].append(first_line)
            kinds["backend, launch() returned"].append(returned)
        await compute.stop_all(5.0)
        compute.close()
    print(
        f"isolation {isolation}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {count} of each; milliseconds"
    )
    for note in notes:
        print(f"note: {note}")
    for name, values in kinds.items():
        print(
            f"{name:28} p50 {statistics.median(values):7.1f}   p99 {_percentile(values, 0.99):7.1f}   min {min(values):7.1f}"
        )
    added = statistics.median(kinds["backend"]) - statistics.median(kinds["subprocess"])
    print(f"added by the backend (p50): {added:.1f} ms; target {_TARGET_MILLISECONDS:.0f} ms")


async def _backend(compute: LocalCompute, number: int) -> tuple[float, float]:
    instance = Instance(
        id=f"bench-{number}.0.0",
        workload_id=f"bench-{number}",
        index=0,
        attempt=0,
        project_id="bench",
        role="bench",
        task=Command(_PROGRAM),
        limits=Limits(cpus=1.0, memory_bytes=256 << 20),
    )
    started = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    await compute.launch(instance)
    returned = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    while not (chunk := await compute.read_logs(instance.id, 0, 1000)).is_end:
        await asyncio.sleep(0.002)
    await compute.remove(instance.id)
    return (int(chunk.data) - started) / 1e6, (returned - started) / 1e6


def _bare(command: tuple[str, ...]) -> float:
    started = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={"PATH": os.defpath})
    return (int(done.stdout) - started) / 1e6


def _bwrap_arguments() -> list[str]:
    system = [word for name in ("bin", "lib", "lib64", "sbin") for word in ("--symlink", f"usr/{name}", f"/{name}")]
    return ["--unshare-user", "--unshare-pid", "--ro-bind", "/usr", "/usr", *system, "--proc", "/proc", "--dev", "/dev"]


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
