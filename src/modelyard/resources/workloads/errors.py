"""Sentences of workloads."""

from __future__ import annotations

from modelyard.kit.errors import Fault, Invalid


class NeverFits(Invalid):
    """The workload asks for more than the machine has, even when nothing else runs."""

    code = 400020

    def __init__(self, field: str, wanted: str, available: str) -> None:
        super().__init__(
            [
                Fault(
                    field,
                    f"asks for {wanted}, but this platform has {available} in all; choose a smaller instance type or fewer instances",
                )
            ]
        )
