"""Wire shapes of use."""

from __future__ import annotations

from modelyard.wire import Header, Moment, Wire


class UsageOut(Wire):
    """What an instance used, in columns of the same length: means over each stretch, `…Max` the most of it.

    Cores may be fractions; sizes are bytes; GPU columns are there where the instance has GPUs (200 % are two at full load).
    """

    instance: int
    times: list[Moment]
    cpu_cores: list[float]
    cpu_cores_max: list[float]
    memory_bytes: list[int]
    memory_bytes_max: list[int]
    disk_bytes: list[int]
    gpu_percent: list[float] | None = None
    gpu_memory_bytes: list[int] | None = None


class UsageLimits(Wire):
    """What each instance may use at most; absent where there is no limit or nothing is known any more."""

    cpu_cores: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None


class UsageList(Wire):
    """`GET /trainings/{id}/usage`: one entry for each instance, stretches of `resolutionSeconds`."""

    header: Header = Header()
    resolution_seconds: int
    limits: UsageLimits
    usage_list: list[UsageOut]
