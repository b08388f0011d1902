"""Makes `import ts` mean this package where TorchServe is not installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_NAME = "ts"
_PACKAGE = "modelyard.serving.torchserve"


def offer_ts() -> None:
    """Let `ts` and its modules be found, unless TorchServe's own package is there already."""
    if find_spec(_NAME) is None:
        # First, or the ordinary finder would see this package's directory and run its modules again under the second name.
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder, Loader):
    """Gives the modules of this package under a second name; each exists once, so classes stay the same under both."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != _NAME:
            return None
        try:
            found = find_spec(_real(fullname))
        except ModuleNotFoundError:
            return None
        if found is None:
            return None
        return ModuleSpec(fullname, self, is_package=found.submodule_search_locations is not None)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(_real(spec.name))
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has written the second name into the module; it ran long ago under its first.
        module.__spec__ = self._specs.pop(_NAME + module.__name__.removeprefix(_PACKAGE), module.__spec__)


def _real(name: str) -> str:
    return _PACKAGE + name.removeprefix(_NAME)
