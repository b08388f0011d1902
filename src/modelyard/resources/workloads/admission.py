"""Who may start now. Memory is never promised twice; CPU may be, by a factor.

Workloads are admitted in the order of their creation, so that a large one is not starved by small ones that come later.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.compute.port import Capacity
from modelyard.resources.workloads.errors import NeverFits
from modelyard.resources.workloads.model import Held, WorkloadSpec


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """How much is promised.

    Attributes:
        cpu_overcommit: cores may be promised this many times over; a busy core is shared, nothing breaks.
        memory_overcommit: above 1.0 workloads may be killed by one another's memory.
    """

    cpu_overcommit: float = 4.0
    memory_overcommit: float = 1.0


NOTHING = Held(cpus=0.0, memory_bytes=0, gpus=0)


def demand(spec: WorkloadSpec) -> Held:
    """What a workload holds while it runs. Builds hold nothing: they are few, short, and everything waits for them."""
    if spec.command is None:
        return NOTHING
    return Held(
        cpus=spec.limits.cpus * spec.cpu_share * spec.instances,
        memory_bytes=spec.limits.memory_bytes * spec.instances,
        gpus=spec.limits.gpus * spec.instances,
    )


def add(one: Held, other: Held) -> Held:
    """Both together."""
    return Held(
        cpus=one.cpus + other.cpus, memory_bytes=one.memory_bytes + other.memory_bytes, gpus=one.gpus + other.gpus
    )


def check_ever_fits(wanted: Held, capacity: Capacity, settings: AdmissionSettings) -> None:
    """Raise `NeverFits` if it would not fit even when nothing else ran."""
    if wanted.memory_bytes > capacity.memory_bytes * settings.memory_overcommit:
        raise NeverFits("flavorId", f"{_gib(wanted.memory_bytes)} of memory", _gib(capacity.memory_bytes))
    if wanted.cpus > capacity.cpus * settings.cpu_overcommit:
        raise NeverFits("flavorId", f"{wanted.cpus:g} cores", f"{capacity.cpus * settings.cpu_overcommit:g} to promise")
    if wanted.gpus > capacity.gpus:
        raise NeverFits("flavorId", f"{wanted.gpus} GPUs", f"{capacity.gpus}")


def lacking(wanted: Held, held: Held, capacity: Capacity, settings: AdmissionSettings) -> str | None:
    """What it has to wait for, as a phrase, or None if it fits now."""
    free_memory = capacity.memory_bytes * settings.memory_overcommit - held.memory_bytes
    if wanted.memory_bytes > free_memory:
        return f"{_gib(wanted.memory_bytes)} of memory ({_gib(max(0, free_memory))} of {_gib(capacity.memory_bytes)} are free)"
    free_cpus = capacity.cpus * settings.cpu_overcommit - held.cpus
    if wanted.cpus > free_cpus + 1e-9:
        return f"{wanted.cpus:g} cores ({max(0.0, free_cpus):g} of {capacity.cpus * settings.cpu_overcommit:g} can still be promised)"
    if wanted.gpus > capacity.gpus - held.gpus:
        return f"{wanted.gpus} GPUs ({capacity.gpus - held.gpus} of {capacity.gpus} are free)"
    return None


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
