"""The settings of the local backend, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Isolation(StrEnum):
    """How instances are kept apart, best first."""

    WORKLOAD_USER = "WORKLOAD_USER"
    """Namespaces, and a user of its own for each workload (needs root)."""
    NAMESPACES = "NAMESPACES"
    """Namespaces; outside, every instance is the platform's user."""
    NONE = "NONE"
    """Plain processes of the platform's user."""


@dataclass(frozen=True, slots=True)
class LocalComputeSettings:
    """What may be set.

    Attributes:
        isolation: the best that may be tried; what the machine does not offer falls back to the next with a note. A wish, not a
            guarantee: `needs_isolation` makes it one.
        needs_isolation: refuse to launch rather than to run without any isolation.
        has_cgroups: use control groups where the machine offers them.
        first_uid, first_gid, identity_count: users of workloads and groups of projects. The default range is one that systemd keeps
            free (`systemd.io/UIDS-GIDS`), outside of what containers and user namespaces are given.
        output_segment_bytes, output_segment_count: the newest so many bytes of an instance's output are kept on disk.
        storage_interval_seconds: how often an instance with a storage limit is measured.
        data_cache_bytes: how much a project's data cache may hold; 0 for none.
        report_limit_bytes: a longer report is ignored.
        memory_reserve_bytes, cpu_reserve: kept from instances, for the platform and the system.
        launch_threads: launches, looks and removals at the same time.
    """

    isolation: Isolation = Isolation.WORKLOAD_USER
    needs_isolation: bool = False
    has_cgroups: bool = True
    first_uid: int = 0x70000000
    first_gid: int = 0x70010000
    identity_count: int = 65_536
    output_segment_bytes: int = 16 << 20
    output_segment_count: int = 8
    storage_interval_seconds: float = 20.0
    data_cache_bytes: int = 20 << 30
    report_limit_bytes: int = 256 << 10
    memory_reserve_bytes: int = 512 << 20
    cpu_reserve: float = 0.0
    launch_threads: int = 8
    system_directories: tuple[str, ...] = field(
        default=("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    )
