"""Sentences of instance types."""

from __future__ import annotations

from modelyard.kit.errors import Fault, Invalid


class UnknownFlavor(Invalid):
    """There is no such instance type."""

    code = 400010

    def __init__(self, flavor_id: str, known: list[str]) -> None:
        super().__init__(
            [Fault("flavorId", f"there is no instance type '{flavor_id}'; choose one of {', '.join(known)}")]
        )


class BadFlavorFile(Exception):
    """The admin's file of instance types can't be read; the message names the file, the entry and the field."""
