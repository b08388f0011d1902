"""Finds out how well this machine can isolate instances, by really running one in each way until one works."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from modelyard.compute.backends.local.observing import observe
from modelyard.compute.backends.local.planning import Machine
from modelyard.compute.backends.local.settings import Isolation
from modelyard.compute.port import Command, Instance, LaunchRefused, Limits, Observation, Phase
from modelyard.kit.errors import RetryLater

PROBE_PREFIX = "probe."
_PROBE_SECONDS = 20.0
_LADDER = (Isolation.WORKLOAD_USER, Isolation.NAMESPACES)
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")

Launch = Callable[[Instance, Machine], Path]
"""Launches an instance in the way that the machine's description says, and answers its directory."""


def probe_instance(number: int) -> Instance:
    """A harmless instance that needs everything that others need."""
    return Instance(
        id=f"{PROBE_PREFIX}{time.time_ns():x}.{number}",
        workload_id=f"probe.{number}",
        index=0,
        attempt=0,
        project_id="probe",
        role="probe",
        task=Command(argv=("/bin/true",)),
        limits=Limits(cpus=1.0, memory_bytes=256 << 20, pids=64),
        grace_seconds=0.0,
    )


def find_isolation(
    machine: Machine, is_root: bool, launch: Launch, remove: Callable[[Path], None]
) -> tuple[Isolation, str | None]:
    """The best way that works and that the settings allow; with a sentence about what is missing when it is no isolation at all."""
    if machine.settings.isolation is Isolation.NONE:
        return Isolation.NONE, "Not isolated: the settings say so."
    if machine.runtime.bwrap is None:
        return Isolation.NONE, "Not isolated: bubblewrap is missing. Install the package bubblewrap."
    reason = ""
    for number, isolation in enumerate(_LADDER):
        is_wanted = isolation is not Isolation.WORKLOAD_USER or (is_root and machine.settings.isolation is isolation)
        if not is_wanted:
            continue
        failure = _failure(replace(machine, isolation=isolation), number, launch, remove)
        if failure is None:
            note = f"Workloads share the platform's user: {reason}" if is_root and reason else None
            return isolation, note
        reason = failure
    return Isolation.NONE, f"Not isolated: {reason} {_advice()}".strip()


def _failure(machine: Machine, number: int, launch: Launch, remove: Callable[[Path], None]) -> str | None:
    instance = probe_instance(number)
    try:
        directory = launch(instance, machine)
    except (LaunchRefused, RetryLater, OSError) as error:
        return str(error)
    try:
        seen = _ended(instance.id, directory)
    finally:
        with suppress(OSError):
            remove(directory)
    if seen.exit is None:
        return "a sandbox did not end in time."
    return None if seen.exit.code == 0 else seen.exit.message


def _ended(instance_id: str, directory: Path) -> Observation:
    deadline = time.monotonic() + _PROBE_SECONDS
    while True:
        seen = observe(instance_id, directory, 0)
        if seen.phase is Phase.EXITED or time.monotonic() > deadline:
            return seen
        time.sleep(0.003)


def _advice() -> str:
    with suppress(OSError):
        if _APPARMOR.read_text().strip() == "1":
            return (
                "This system restricts user namespaces by AppArmor: an administrator can allow them with "
                "'sysctl kernel.apparmor_restrict_unprivileged_userns=0' or an AppArmor profile for bubblewrap."
            )
    return "An administrator can allow user namespaces (and an unmasked /proc, in a container), or run the platform as root."
