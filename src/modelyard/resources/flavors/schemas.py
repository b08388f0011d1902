"""Wire shapes of instance types."""

from __future__ import annotations

from modelyard.wire import Header, Paging, Wire


class FlavorOut(Wire):
    """An instance type. `ram` and `gpuMemory` are MiB, `disk` GiB."""

    id: str
    name: str
    vcpus: int
    ram: int
    disk: int
    gpu_flavor: bool = False
    gpu_count: int = 0
    gpu_memory: int = 0
    core_type_code: str = "CPU"


class FlavorList(Wire):
    """`GET /flavors`."""

    header: Header = Header()
    flavor_list: list[FlavorOut]
    paging: Paging
