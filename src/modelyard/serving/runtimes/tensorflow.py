"""SavedModels through TensorFlow's session loader, as TensorFlow Serving runs them.

The graph and its signatures are all that is used, so exports of Keras 2, of Keras 3 and of plain `tf.Module` load alike, whichever Keras
the image has, and no user's Python class is needed. A callable of the session that runs in the caller's thread answers a small model in
about 30 µs; `signatures[...](...)` of `tf.saved_model.load` needs 600 µs for the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import Array, Signature, Tensors, TensorSpec
from modelyard.serving.errors import BadRequest, LoadFailed
from modelyard.serving.runtimes.tensorflow_core import Core, whole

tf = Core()

_TAG = "serve"
_PREFERRED = "serving_default"
_NO_VARIABLES = (
    "the SavedModel's variables are missing: variables/variables.index and variables/variables.data-* must lie "
    "beside saved_model.pb"
)
_UNKNOWN_OPERATION = "the SavedModel uses an operation that this TensorFlow does not have"
_RUN_IN_CALLERS_THREAD = -1  # RunOptions.inter_op_thread_pool


def open_model(path: Path, config: ServingConfig) -> SavedModel:
    """The SavedModel in a directory. Raises `LoadFailed` with what is wrong with it."""
    try:
        return SavedModel(path, config.processor_count)
    except LoadFailed as failure:
        if _UNKNOWN_OPERATION not in failure.message:
            raise
        whole()  # some parts of its Python side bring operations of their own
        return SavedModel(path, config.processor_count)


class SavedModel:
    """A loaded SavedModel; see `TensorRuntime`.

    Args:
        path: the directory that holds `saved_model.pb`.
        processor_count: how many threads one prediction may use.
    """

    platform = "tensorflow_savedmodel"

    def __init__(self, path: Path, processor_count: int) -> None:
        tf.get_logger().setLevel(
            "ERROR"
        )  # the session loader is said to be deprecated; TensorFlow Serving stands on it
        options = tf.ConfigProto(
            intra_op_parallelism_threads=processor_count, inter_op_parallelism_threads=processor_count
        )
        graph = tf.Graph()
        self._session: Any = tf.Session(graph=graph, config=options)
        with graph.as_default():
            meta = _load(self._session, path)
        if any(node.op in ("VarHandleOp", "VariableV2") for node in meta.graph_def.node):
            _check_variables(path)
        self.signatures: dict[str, Signature] = {}
        self._calls: dict[str, tuple[Any, tuple[Any, ...]]] = {}
        for name in sorted(meta.signature_def):
            definition = meta.signature_def[name]
            if not name.startswith("__saved_model") and _is_dense(definition):
                self._add(name, definition)
        if not self.signatures:
            raise LoadFailed(
                "the SavedModel has no signature that can be served; export it with model.export(directory), or with "
                "tf.saved_model.save(module, directory, signatures=...)"
            )
        self.default_signature = _PREFERRED if _PREFERRED in self.signatures else next(iter(self.signatures))

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        """Run the graph; see `TensorRuntime`."""
        call, dtypes = self._calls[signature.name]
        feeds = [_fed(inputs[spec.name], dtype) for spec, dtype in zip(signature.inputs, dtypes, strict=True)]
        try:
            results = call(*feeds)
        except (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
            raise BadRequest(f"the model refuses the input: {_reason(error)}") from error
        return {spec.name: np.asarray(array) for spec, array in zip(signature.outputs, results, strict=True)}

    def close(self) -> None:
        """Give back the session's threads and memory."""
        self._calls.clear()
        self._session.close()

    def _add(self, name: str, definition: Any) -> None:
        inputs, outputs = sorted(definition.inputs.items()), sorted(definition.outputs.items())
        signature = Signature(name, tuple(_spec(*item) for item in inputs), tuple(_spec(*item) for item in outputs))
        dtypes = tuple(tf.as_dtype(info.dtype).as_numpy_dtype for _, info in inputs)
        feeds, fetches = [info.name for _, info in inputs], [info.name for _, info in outputs]
        self.signatures[name] = signature
        self._calls[name] = (_callable(self._session, feeds, fetches), dtypes)


def _load(session: Any, path: Path) -> Any:
    try:
        return tf.load(session, [_TAG], str(path))
    except Exception as error:  # damaged files raise whatever the parser of the day raises
        raise LoadFailed(_load_fault(error)) from error


def _load_fault(error: Exception) -> str:
    reason = _reason(error)
    if "Op type not registered" in reason:
        return f"{_UNKNOWN_OPERATION}: {reason}"
    if "valid checkpoint" in reason:
        return _NO_VARIABLES
    if isinstance(error, tf.errors.NotFoundError):
        return f"the SavedModel lacks a file of its variables or assets: {reason}"
    if isinstance(error, tf.errors.OpError):
        return f"the SavedModel's variables can't be read: {reason}"
    if "MetaGraphDef" in reason:
        return f"the SavedModel has no graph for serving (tag '{_TAG}'): {reason}"
    return f"the SavedModel is broken: {reason}"


def _check_variables(path: Path) -> None:
    """TensorFlow may load a graph without its variables and fail at the first prediction; better told now."""
    folder = path / "variables"
    if not (folder / "variables.index").is_file() or not any(folder.glob("variables.data-*")):
        raise LoadFailed(_NO_VARIABLES)


def _is_dense(definition: Any) -> bool:
    infos = [*definition.inputs.values(), *definition.outputs.values()]
    return bool(definition.outputs) and all(info.WhichOneof("encoding") == "name" for info in infos)


def _spec(name: str, info: Any) -> TensorSpec:
    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else int(dim.size) for dim in info.tensor_shape.dim)
    return TensorSpec(name, str(tf.as_dtype(info.dtype).base_dtype.name), shape)


def _callable(session: Any, feeds: list[str], fetches: list[str]) -> Any:
    make = getattr(session, "_make_callable_from_options", None)
    if make is None:  # not part of the public API, so a later TensorFlow may lack it
        graph = session.graph
        return session.make_callable(
            [graph.get_tensor_by_name(name) for name in fetches],
            feed_list=[graph.get_tensor_by_name(name) for name in feeds],
        )
    options: Any = tf.CallableOptions()
    options.feed.extend(feeds)
    options.fetch.extend(fetches)
    options.run_options.inter_op_thread_pool = _RUN_IN_CALLERS_THREAD
    return make(options)


def _fed(array: Array, dtype: Any) -> Array:
    return array if array.dtype == dtype else array.astype(dtype)


def _reason(error: Exception) -> str:
    """TensorFlow's messages go on with stack traces and node definitions; the first lines say what is wrong."""
    text = getattr(error, "message", None) or str(error)
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    if len(lines) > 1 and "root error" in lines[0]:
        lines = lines[1:]
    return (lines[0] if lines else type(error).__name__)[:500]
