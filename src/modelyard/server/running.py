"""What runs of a platform: `modelyard status`. Reads only; works without a running platform, and asks neither server nor database."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from modelyard.gateway.backends.envoy.process import running_envoy
from modelyard.gateway.backends.envoy.settings import Files
from modelyard.server.home import Home
from modelyard.server.keeper import keeper_pid
from modelyard.server.local_compute import make_compute
from modelyard.server.settings import Settings


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process of the platform, or one instance of a workload.

    Attributes:
        role: `keeper`, `server`, `gateway`, or an instance's role (`training`, `model-server`, …).
        memory_bytes: resident memory of a platform process; of an instance's whole tree.
        title: what an instance is for, e.g. `training 'iris'`.
    """

    role: str
    name: str
    pid: int | None
    state: str
    memory_bytes: int | None
    title: str = ""


def read_status(home: Home, settings: Settings) -> list[ProcessStatus]:
    """Every process of the platform and every instance that has not ended."""
    rows = [_platform_row("keeper", keeper_pid(home.root))]
    rows.extend(_platform_row("server", _server_pid(home, index)) for index in _server_indices(home))
    envoy = running_envoy(Files(home.gateway))
    rows.append(_platform_row("gateway", None if envoy is None else envoy.identity.pid))
    if not home.compute.exists():
        return rows
    compute, _ = make_compute(home, settings)
    try:
        for each in asyncio.run(compute.list_instances()):
            seen = each.observation
            if seen.exit is None:
                rows.append(
                    ProcessStatus(
                        each.role,
                        each.id,
                        seen.pid or each.supervisor_pid,
                        seen.phase.value,
                        seen.memory_bytes,
                        each.title,
                    )
                )
    finally:
        compute.close()
    return rows


def _platform_row(role: str, pid: int | None) -> ProcessStatus:
    return ProcessStatus(
        role, role, pid, "STOPPED" if pid is None else "RUNNING", None if pid is None else _resident(pid)
    )


def _server_indices(home: Home) -> list[int]:
    """The first server, and others that have been started."""
    found = {int(path.stem.partition("-")[2]) for path in home.run.glob("server-*.lock") if path.stem[7:].isdigit()}
    return sorted({0} | {index for index in found if _server_pid(home, index) is not None})


def _server_pid(home: Home, index: int) -> int | None:
    try:
        pid = int((home.run / f"server-{index}.lock").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if b"modelyard.server" in command else None


def _resident(pid: int) -> int | None:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None
