"""What an instance type is."""

from __future__ import annotations

import uuid
from functools import cache

from pydantic import BaseModel, ConfigDict, Field

_NAMESPACE = uuid.UUID("6f1d6c0e-54d2-5d0c-9d1a-6f2f6a1f4b11")


class Flavor(BaseModel):
    """An instance type: cores, memory (MiB), boot storage (GiB), GPUs, and processes at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,49}$")
    vcpus: float = Field(gt=0, le=4096)
    ram: int = Field(ge=64)
    disk: int = Field(default=20, ge=0)
    gpus: int = Field(default=0, ge=0)
    gpu_memory: int = Field(default=0, ge=0)
    pids: int = Field(default=4096, ge=16)
    is_hidden: bool = False

    @property
    def id(self) -> str:
        """Stable: made from the name."""
        return _id_of(self.name)

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return self.ram * 1024 * 1024

    @property
    def core_type(self) -> str:
        """`GPU` or `CPU`."""
        return "GPU" if self.gpus else "CPU"


@cache
def _id_of(name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, name))
