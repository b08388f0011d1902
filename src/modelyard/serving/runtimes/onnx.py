"""ONNX graphs through ONNX Runtime."""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any, cast

import numpy as np

from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import STRING, Array, Signature, Tensors, TensorSpec
from modelyard.serving.errors import BadRequest, LoadFailed

ort: Any = import_module("onnxruntime")

SIGNATURE = "main"
# A second session takes about twice the weights as they lie on disk; beyond this the memory is worth more than the time.
_CROWD_BYTES = 64 * 1024 * 1024
# Those of a crowd are now and then alone for a moment: while one is read, or its answer is written.
_CROWD_SECONDS = 0.05
_CROWD_SHARE = 1 / 32  # of the instance's memory: a model that just fits must go on fitting
_ELEMENTS = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "string": STRING,
    "bool": "bool",
}


def open_model(path: Path, config: ServingConfig) -> OnnxModel:
    """The graph in a file. Raises `LoadFailed`."""
    return OnnxModel(path, config.processor_count, _crowd_bytes(config))


class OnnxModel:
    """A loaded graph; see `TensorRuntime`.

    One prediction alone uses all processors. When several are under way, and for a moment after that, each uses one: threads that share a
    prediction wait for each other, and who waits for one that another prediction keeps off the processor burns time that the other could use.
    How many threads a session has is fixed, so the first prediction that meets another makes a session of one thread (of graphs that are not too
    large).

    Args:
        path: the `.onnx` file.
        processor_count: how many threads one prediction may use.
        crowd_bytes: graphs with more bytes of weights make no second session.
    """

    platform = "onnxruntime_onnx"
    default_signature = SIGNATURE

    def __init__(self, path: Path, processor_count: int, crowd_bytes: int = _CROWD_BYTES) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._running = 0
        self._crowd: Any = None
        self._crowded_until = 0.0
        self._may_split = processor_count > 1 and _weight_bytes(path) <= crowd_bytes
        try:
            self._session: Any = _session(path, processor_count)
            specs = tuple(_spec(value) for value in self._session.get_inputs())
            outputs = tuple(_output(value) for value in self._session.get_outputs())
        except LoadFailed:
            raise
        except Exception as error:
            raise LoadFailed(f"{path.name} can't be loaded as an ONNX graph: {_one_line(error)}") from error
        self.signatures = {SIGNATURE: Signature(SIGNATURE, specs, outputs)}

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        """Run the graph; see `TensorRuntime`."""
        feeds = {spec.name: _fed(inputs[spec.name]) for spec in signature.inputs}
        with self._lock:
            now = monotonic()
            if self._running:
                self._crowded_until = now + _CROWD_SECONDS
            is_alone = now >= self._crowded_until
            self._running += 1
        try:
            results = (self._session if is_alone else self._crowded()).run(None, feeds)
        except Exception as error:
            if type(error).__name__ in ("InvalidArgument", "Fail", "RuntimeException"):
                raise BadRequest(f"the model refuses the input: {_one_line(error)}") from error
            raise
        finally:
            with self._lock:
                self._running -= 1
        return {spec.name: _array(value) for spec, value in zip(signature.outputs, results, strict=True)}

    def close(self) -> None:
        """Let the sessions go."""
        self._session = self._crowd = None

    def _crowded(self) -> Any:
        """The session for predictions that are not alone."""
        if self._crowd is not None:
            return self._crowd
        with self._lock:
            is_maker, self._may_split = self._may_split, False
        if is_maker:  # once; whoever comes meanwhile takes the other session
            try:
                self._crowd = _session(self._path, 1)
            except Exception as error:  # the file was read before; without it, predictions go on as they were
                print(f"model server: no second session for {self._path.name}: {_one_line(error)}", file=sys.stderr)
        return self._crowd or self._session


def _session(path: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take processor time from the HTTP side of this small server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=ort.get_available_providers())


def _crowd_bytes(config: ServingConfig) -> int:
    if not config.memory_bytes:
        return _CROWD_BYTES
    return min(_CROWD_BYTES, int(config.memory_bytes * _CROWD_SHARE / max(1, len(config.peers))))


def _weight_bytes(path: Path) -> int:
    """What the graph takes on disk, with the files of weights beside it."""
    return sum(each.stat().st_size for each in path.parent.iterdir() if each.is_file())


def _spec(value: Any) -> TensorSpec:
    element = str(value.type).removeprefix("tensor(").removesuffix(")")
    if not str(value.type).startswith("tensor("):
        raise LoadFailed(f"the graph's '{value.name}' is a {value.type}; only tensors can be served")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(str(value.name), _ELEMENTS.get(element, element), shape)


def _output(value: Any) -> TensorSpec:
    """Converters of classifiers write chances as a list of maps from class to number (ZipMap); a table says the same."""
    if str(value.type).startswith("seq(map("):
        return TensorSpec(str(value.name), "float32", (None, None))
    return _spec(value)


def _array(value: Any) -> Array:
    if isinstance(value, list):  # of maps; each has all classes, in the same order
        return np.array([list(row.values()) for row in cast("list[dict[Any, float]]", value)], dtype=np.float32)
    return np.asarray(value)


def _fed(array: Array) -> Array:
    if array.dtype.kind != "O":
        return array
    return np.array([item.decode() for item in array.reshape(-1)], dtype=object).reshape(array.shape)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
