"""ONNX graphs through ONNX Runtime."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import STRING, Array, Signature, Tensors, TensorSpec
from modelyard.serving.errors import BadRequest, LoadFailed

ort: Any = import_module("onnxruntime")

SIGNATURE = "main"
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
    return OnnxModel(path, config.processor_count)


class OnnxModel:
    """A loaded graph; see `TensorRuntime`.

    Args:
        path: the `.onnx` file.
        processor_count: how many threads one prediction may use.
    """

    platform = "onnxruntime_onnx"
    default_signature = SIGNATURE

    def __init__(self, path: Path, processor_count: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = processor_count
        options.inter_op_num_threads = 1
        # Threads that spin while they wait take processor time from the HTTP side of this small server.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = ort.InferenceSession(str(path), options, providers=ort.get_available_providers())
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
        try:
            results = self._session.run(None, feeds)
        except Exception as error:
            if type(error).__name__ in ("InvalidArgument", "Fail", "RuntimeException"):
                raise BadRequest(f"the model refuses the input: {_one_line(error)}") from error
            raise
        return {spec.name: _array(value) for spec, value in zip(signature.outputs, results, strict=True)}

    def close(self) -> None:
        """Let the session go."""
        self._session = None


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
