"""The catalogue of instance types: the built-in one, overlaid by the admin's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError

from modelyard.resources.flavors.errors import BadFlavorFile, UnknownFlavor
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.flavors.schemas import FlavorOut
from modelyard.wire import plain

_BUILT_IN = Path(__file__).with_name("flavors.yaml")


class Flavors:
    """Instance types. The admin's file is read again when it has changed."""

    def __init__(self, overlay: Path | None = None, *, has_gpu: bool = False) -> None:
        self._overlay = overlay
        self._has_gpu = has_gpu
        self._stamp: tuple[int, int] | None = None
        self._built_in = _read(_BUILT_IN)
        self._flavors: Mapping[str, Flavor] = self._load()

    def list(self) -> list[Flavor]:
        """All that can be chosen, in the order of the files. GPU types appear where a GPU was found."""
        if self._overlay_stamp() != self._stamp:
            self._flavors = self._load()
        return [
            flavor for flavor in self._flavors.values() if not flavor.is_hidden and (self._has_gpu or not flavor.gpus)
        ]

    def get(self, flavor_id: str) -> Flavor:
        """The instance type with this id or name. Raises `UnknownFlavor`."""
        flavors = self.list()
        for flavor in flavors:
            if flavor_id in (flavor.id, flavor.name):
                return flavor
        raise UnknownFlavor(flavor_id, [flavor.name for flavor in flavors])

    def find(self, flavor_id: str) -> Flavor | None:
        """Like `get`, also for one that was hidden since; None if it is gone from the catalogue."""
        return next((flavor for flavor in self._flavors.values() if flavor_id in (flavor.id, flavor.name)), None)

    def _load(self) -> Mapping[str, Flavor]:
        self._stamp = self._overlay_stamp()
        flavors = {flavor.name: flavor for flavor in self._built_in}
        if self._overlay is not None and self._stamp is not None:
            flavors.update({flavor.name: flavor for flavor in _read(self._overlay)})
        return flavors

    def _overlay_stamp(self) -> tuple[int, int] | None:
        if self._overlay is None:
            return None
        try:
            status = self._overlay.stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size


def flavor_out(flavor: Flavor) -> FlavorOut:
    """The wire form."""
    return FlavorOut(
        id=flavor.id,
        name=flavor.name,
        vcpus=max(1, round(flavor.vcpus)),
        ram=flavor.ram,
        disk=flavor.disk,
        gpu_flavor=flavor.gpus > 0,
        gpu_count=flavor.gpus,
        gpu_memory=flavor.gpu_memory,
        core_type_code=flavor.core_type,
    )


def _read(path: Path) -> list[Flavor]:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadFlavorFile(f"{path}: {error}") from error
    if not isinstance(content, list):
        raise BadFlavorFile(f"{path}: expected a list of instance types")
    flavors: list[Flavor] = []
    for index, entry in enumerate(cast(list[Any], content)):
        try:
            flavors.append(Flavor.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise BadFlavorFile(f"{path}: entry {index + 1}, {field or 'entry'}: {plain(first)}") from error
    return flavors
