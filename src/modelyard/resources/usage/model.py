"""What the use of instances is told in, free of any framework."""

from __future__ import annotations

from dataclasses import dataclass

RESOLUTIONS = (10, 60, 3600)
"""Lengths in seconds of the stretches that use is kept in."""

SAMPLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What an instance uses now: cores, bytes, and percent of a GPU (None without one)."""

    owner_id: str
    instance: int
    cpu_cores: float
    memory_bytes: int
    disk_bytes: int
    gpu_percent: float | None = None
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """What an instance used in a stretch of time that begins at `at` (seconds since 1970): means, and the most of it."""

    instance: int
    at: int
    cpu_cores: float
    cpu_cores_max: float
    memory_bytes: float
    memory_bytes_max: int
    disk_bytes: int
    gpu_percent: float | None = None
    gpu_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long use is kept, in seconds, by its resolution.

    Attributes:
        live: behind now, of instances that still run: what bounds the rows of one that never ends.
        ended: after which also those of ended ones are dropped.
    """

    live: dict[int, float]
    ended: dict[int, float]

    @classmethod
    def of_days(cls, days: int) -> Retention:
        """Ten-second rows for six hours of a live instance and a week of ended ones, minutes for two weeks, hours for `days`."""
        hour, day = 3600.0, 86400.0
        return cls({10: 6 * hour, 60: 14 * day}, {10: min(7, days) * day, 60: min(30, days) * day, 3600: days * day})
