"""Reads what can be seen of one instance: its records, its processes, its groups and the report that it wrote itself.

No process is started and nothing is waited for. What an instance wrote is untrusted: it is size-capped, must be a plain file and a
JSON object, and a link is not followed.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, cast

from modelyard.compute.backends.local import output, processes, records
from modelyard.compute.backends.local.cgroups import Cgroups
from modelyard.compute.port import Cause, Exit, Network, Observation, Phase

_END_SECONDS = 10.0
_LOOPBACK, _LOOPBACK_INTERFACE = "127.0.0.1", "lo"


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What the launcher wrote down about an instance (`instance.json`).

    Attributes:
        cgroups_v1, cgroup_v2, cgroup_v2_controllers: as `Cgroups` takes them.
        gpu_devices: device files that it has to itself.
        account: whose user it runs as.
        environment: digest of the environment that it runs in; empty for none.
        title: what it is for.
    """

    id: str
    workload_id: str
    project_id: str
    role: str
    run_directory: str
    sockets: Mapping[str, str]
    notes: tuple[str, ...]
    cgroups_v1: Mapping[str, str]
    cgroup_v2: str | None
    cgroup_v2_controllers: tuple[str, ...]
    gpu_devices: tuple[str, ...]
    account: str = ""
    environment: str = ""
    title: str = ""

    @property
    def cgroups(self) -> Cgroups:
        """Its groups."""
        return Cgroups(dict(self.cgroups_v1), self.cgroup_v2, self.cgroup_v2_controllers)


def read_facts(directory: Path) -> InstanceFacts | None:
    """What the launcher wrote down, or None where there is nothing (whole)."""
    fields = _read_json(directory / records.INSTANCE)
    if fields is None:
        return None
    try:
        for name in ("notes", "cgroup_v2_controllers", "gpu_devices"):
            fields[name] = tuple(fields[name])
        return InstanceFacts(**fields)
    except (KeyError, TypeError):
        return None


def is_supervised(directory: Path) -> bool:
    """Whether the instance's own supervisor runs now."""
    supervisor = _read_json(directory / records.SUPERVISOR)
    return supervisor is not None and processes.is_alive(
        supervisor["pid"], supervisor["start_ticks"], supervisor["boot_id"]
    )


def supervisor_pid(directory: Path) -> int | None:
    """The pid that the supervisor recorded; see `is_supervised` for whether it is still the supervisor's."""
    supervisor = _read_json(directory / records.SUPERVISOR)
    return None if supervisor is None else supervisor["pid"]


def init_pid(directory: Path) -> int | None:
    """The first process of the instance; None before it has started."""
    start = _read_json(directory / records.START)
    return None if start is None else start["init_pid"]


def has_ended(directory: Path) -> bool:
    """Whether the exit is on record."""
    return (directory / records.EXIT).exists()


def observe(instance_id: str, directory: Path, report_limit_bytes: int) -> Observation:
    """What is seen of the instance in this directory."""
    facts = read_facts(directory)
    supervisor = _read_json(directory / records.SUPERVISOR)
    if facts is None or supervisor is None:
        return Observation(instance_id, Phase.ABSENT)
    ended = _read_json(directory / records.EXIT)
    if ended is None and not is_supervised(directory):
        ended = _read_json(directory / records.EXIT) or _record_loss(directory, facts, supervisor)
    report = read_report(Path(facts.run_directory), report_limit_bytes)
    if ended is not None:
        return _ended_observation(facts, ended, report, _network(directory))
    start = _read_json(directory / records.START)
    if start is None:
        return Observation(
            instance_id,
            Phase.STARTING,
            report=report,
            sockets=facts.sockets,
            network=_network(directory),
            notes=facts.notes,
        )
    groups = facts.cgroups
    pid = processes.main_below(start["init_pid"]) if start["has_namespace"] else start["init_pid"]
    memory_bytes = groups.memory_bytes()
    if memory_bytes is None and not groups.limits("memory"):
        memory_bytes = processes.resident_bytes([start["init_pid"], *processes.descendants(start["init_pid"])])
    return Observation(
        instance_id,
        Phase.RUNNING,
        started_at=_time(start["started_at"]),
        pid=pid,
        memory_bytes=memory_bytes,
        cpu_seconds=groups.cpu_seconds(),
        report=report,
        sockets=facts.sockets,
        network=_network(directory),
        notes=facts.notes,
    )


def launched_at(directory: Path) -> datetime:
    """When the supervisor recorded itself. Raises FileNotFoundError where none did."""
    return datetime.fromtimestamp((directory / records.SUPERVISOR).stat().st_mtime, UTC)


def read_report(run_directory: Path, limit_bytes: int) -> Mapping[str, Any]:
    """The JSON object that the instance wrote; an empty one for none and for everything that is not exactly that."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(run_directory / records.REPORT, flags)
    except OSError:
        return {}
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return {}
        content = os.read(descriptor, limit_bytes + 1)
    except OSError:
        return {}
    finally:
        os.close(descriptor)
    if len(content) > limit_bytes:
        return {}
    try:
        value: Any = json.loads(content, parse_constant=_refuse_constant)
        # What can't be stored as text (lone surrogates, NUL) would fail far from here, in the database.
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) and "\\u0000" not in text else {}


def end_leftovers(directory: Path, facts: InstanceFacts, is_same_boot: bool) -> bool:
    """End whatever a dead supervisor left behind. Returns whether nobody is left."""
    start = _read_json(directory / records.START)
    if is_same_boot:
        if start is not None and processes.start_ticks(start["init_pid"]) == start["init_ticks"] != 0:
            _kill(start["init_pid"])
        processes.end_marked(f"MODELYARD_ROOT={directory}/root")
    groups = facts.cgroups
    return groups.end(_END_SECONDS) if groups else True


def _network(directory: Path) -> Network | None:
    """All instances of this machine meet on its loopback, where nobody from outside can join them."""
    ports = _read_json(directory / records.PORTS)
    return None if ports is None else Network(_LOOPBACK, ports, _LOOPBACK_INTERFACE)


def _ended_observation(
    facts: InstanceFacts, ended: Mapping[str, Any], report: Mapping[str, Any], network: Network | None
) -> Observation:
    notes = facts.notes
    if lost := ended.get("lost_output_bytes"):
        notes = (*notes, f"{lost} bytes of its output were lost because the disk was full.")
    return Observation(
        facts.id,
        Phase.EXITED,
        exit=Exit(Cause(ended["cause"]), ended["message"], ended.get("code"), ended.get("signal")),
        started_at=_time(ended.get("started_at")),
        ended_at=_time(ended.get("ended_at")),
        memory_bytes=ended.get("peak_memory_bytes"),
        cpu_seconds=ended.get("cpu_seconds"),
        report=report,
        sockets=facts.sockets,
        network=network,
        notes=notes,
    )


def _record_loss(directory: Path, facts: InstanceFacts, supervisor: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The supervisor vanished: end what it left and write the exit in its place. None while that is still going on."""
    lock = os.open(directory / records.SUPERVISOR_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (ended := _read_json(directory / records.EXIT)) is not None:
            return ended
        is_same_boot = supervisor["boot_id"] == processes.boot_id()
        if not end_leftovers(directory, facts, is_same_boot):
            return None
        start = _read_json(directory / records.START) or {}
        logs = str(directory / records.LOGS)
        loss: dict[str, str | int | float | None] = {
            "cause": Cause.LOST.value,
            "message": (
                "Its supervisor was killed, so it was ended."
                if is_same_boot
                else "The machine was restarted while it ran."
            ),
            "code": None,
            "signal": None,
            "started_at": start.get("started_at"),
            "ended_at": datetime.now(UTC).timestamp(),
            "peak_memory_bytes": None,
            "cpu_seconds": None,
            "output_bytes": output.output_end(logs),
            "lost_output_bytes": 0,
        }
        records.write_record(str(directory / records.EXIT), loss, is_durable=True)
        return loss
    except BlockingIOError:
        return None  # The guardian, which inherited the lock, is ending the tree.
    finally:
        os.close(lock)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except OSError:
        return


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
