"""Wire shape of a model's part of its stage's instance type: how many cores and how much memory each of its servers gets.

Without it each server has an instance of the stage's type of its own. Quantities are written as Kubernetes does, which is how the official client's
users know them: cores as `1`, `0.5` or `500m`, memory in bytes or with a unit (`512Mi`, `1Gi`, `1.5G`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import field_validator

from modelyard.kit.errors import Fault
from modelyard.wire import Wire

_MIN_CPUS = 0.1
_MIN_MEMORY = 128 * 2**20
_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)([A-Za-z]*)")
_MEMORY_UNITS = {
    "": 1,
    "K": 10**3,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_CPU_UNITS = {"": 1.0, "m": 0.001}


class ResourceOption(Wire):
    """A part of an instance type. What is absent is the whole of it."""

    cpu: str | None = None
    memory: str | None = None

    @field_validator("cpu", "memory", mode="before")
    @classmethod
    def _read_numbers(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)[:64]  # a number of hundreds of digits is no quantity either
        if isinstance(value, float):
            return f"{value:.9f}".rstrip("0").rstrip(".")
        return None if value == "" else value

    @field_validator("cpu")
    @classmethod
    def _check_cpu(cls, value: str | None) -> str | None:
        if value is not None and cpus_of(value) < _MIN_CPUS:
            raise ValueError(f"'{value}' is too little for a model server; say {_MIN_CPUS} at least")
        return value

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, value: str | None) -> str | None:
        if value is not None and memory_of(value) < _MIN_MEMORY:
            raise ValueError(f"'{value}' is too little for a model server; say 128Mi at least, with its unit")
        return value


def cpus_of(text: str) -> float:
    """Cores. Raises ValueError with the sentence for the user."""
    number, unit = _read(text, _CPU_UNITS, "cores such as 1, 0.5 or 500m")
    return number * unit


def memory_of(text: str) -> int:
    """Bytes. Raises ValueError with the sentence for the user."""
    number, unit = _read(text, _MEMORY_UNITS, "memory such as 512Mi or 2Gi")
    return int(number * unit)


def share_faults(options: Sequence[ResourceOption | None], flavor: str, vcpus: float, memory_bytes: int) -> list[Fault]:
    """What is wrong with the parts that a stage's models take of its instance type: each, and all together, must fit into one."""
    faults: list[Fault] = []
    for name, of, most, unit in (("cpu", cpus_of, vcpus, _cores), ("memory", memory_of, memory_bytes, _mebibytes)):
        asked = {index: of(text) for index, option in enumerate(options) if option and (text := getattr(option, name))}
        for index, value in asked.items():
            if value > most:
                field = f"endpointModelResourceList[{index}].resourceOptionDetail.{name}"
                faults.append(Fault(field, f"asks for {unit(value)}, but '{flavor}' has {unit(most)}"))
        together = sum(asked.values())
        if together > most * 1.000001 and max(asked.values()) <= most:
            sentence = f"the models' {name} comes to {unit(together)} together, but '{flavor}' has {unit(most)}; give them less"
            faults.append(Fault("endpointModelResourceList", sentence))
    return faults


def _cores(value: float) -> str:
    return f"{value:g} cores"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.0f} MiB"


def _read(text: str, units: dict[str, Any], example: str) -> tuple[float, Any]:
    found = _QUANTITY.fullmatch(text.strip())
    if found is None or found[2] not in units:
        raise ValueError(f"'{text[:64]}' is not {example}")
    return float(found[1]), units[found[2]]
