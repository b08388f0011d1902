"""The few parts of TensorFlow that running a graph needs, without the rest.

`import tensorflow` imports Keras, TensorFlow Lite and the whole of the public API: 3.4 s of processor time, of which the session and the loader
need 1. The package's own `__init__` is what imports it all. So the package is entered beside it: a module of that name with the package's path
stands in until something asks it for a name of the API, and then the whole of TensorFlow is imported in its place. Kernels of operations are in the
shared library, which both ways load.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

_NAME = "tensorflow"


class Core:
    """TensorFlow's `Graph`, `Session`, `ConfigProto`, `CallableOptions`, `errors`, `as_dtype` and the session loader's `load`."""

    def __init__(self) -> None:
        if _NAME not in sys.modules:
            _enter_beside()
        try:
            self._take()
        except (ImportError, AttributeError):  # another release may have its parts elsewhere
            whole()
            self._take()

    def _take(self) -> None:
        self.Graph: Any = _of("tensorflow.python.framework.ops", "Graph")
        self.Session: Any = _of("tensorflow.python.client.session", "Session")
        self.ConfigProto: Any = _of("tensorflow.core.protobuf.config_pb2", "ConfigProto")
        self.CallableOptions: Any = _of("tensorflow.core.protobuf.config_pb2", "CallableOptions")
        self.errors: Any = import_module("tensorflow.python.framework.errors_impl")
        self.as_dtype: Any = _of("tensorflow.python.framework.dtypes", "as_dtype")
        self.load: Any = _of("tensorflow.python.saved_model.loader_impl", "load")
        self.get_logger: Any = _of("tensorflow.python.platform.tf_logging", "get_logger")


def whole() -> ModuleType:
    """All of TensorFlow, in the place of what stands in for it."""
    present = sys.modules.get(_NAME)
    if isinstance(present, _StandIn):
        del sys.modules[_NAME]
        try:
            return import_module(_NAME)
        except BaseException:
            sys.modules[_NAME] = present
            raise
    return import_module(_NAME)


class _StandIn(ModuleType):
    """The package without its `__init__`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(whole(), name)


def _enter_beside() -> None:
    spec = find_spec(_NAME)
    if spec is None or spec.origin is None:
        return
    package = _StandIn(_NAME)
    package.__path__ = [str(Path(spec.origin).parent)]
    package.__file__ = spec.origin
    package.__spec__ = spec
    sys.modules[_NAME] = package


def _of(module: str, name: str) -> Any:
    return getattr(import_module(module), name)
