"""A SavedModel as ONNX graphs, as far as their answers agree: a program of its own, run beside a model server that answers meanwhile.

    python -m modelyard.serving.convert SAVED_MODEL_DIRECTORY OUTPUT_DIRECTORY PROCESSOR_COUNT

Each signature is converted by tf2onnx and then compared: both runtimes get the same random inputs in several sizes, and shapes, types and values must
agree (`TOLERANCES`). What is written is `result.json` (see `Result`) and a graph for each signature that agrees. Runs at the lowest priority, is
the first to go when memory runs out, and ends with its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.serving.contract import STRING, Array, Signature, TensorRuntime, Tensors
from modelyard.serving.errors import BadRequest, LoadFailed

RESULT = "result.json"
TOLERANCES = {"float64": (1e-7, 1e-9), "float32": (1e-4, 1e-5), "float16": (1e-2, 1e-3)}
"""Relative and absolute difference that a value may have; whole numbers and booleans none. NaN must be where it was."""

_OPSET = 18
_BATCHES = (1, 2, 7, 32)
_OTHER_SIZE = 32  # of dimensions beyond the first that may vary
_FEWEST_COMPARISONS = 2
_TIMED_CALLS = 20
_PR_SET_PDEATHSIG = 1


@dataclass
class Result:
    """What became of the signatures.

    Attributes:
        converted: by signature: `file`, the largest `difference` that was seen, and the median milliseconds of a call with one row.
        left: by signature, why it stays with the SavedModel.
    """

    converted: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    left: dict[str, str] = field(default_factory=dict[str, str])


class Disagrees(Exception):
    """The graph is not the SavedModel's equal; the message says in what."""


def convert(path: Path, place: Path, processor_count: int) -> Result:
    """Convert the signatures of a SavedModel and compare them."""
    tensorflow: Any = import_module("modelyard.serving.runtimes.tensorflow")
    import_module("modelyard.serving.runtimes.tensorflow_core").whole()  # tf2onnx wants all of it
    onnx: Any = import_module("modelyard.serving.runtimes.onnx")
    saved = tensorflow.SavedModel(path, processor_count)
    result = Result()
    for index, (name, signature) in enumerate(saved.signatures.items()):
        file = place / f"{index}.onnx"
        try:
            _check_convertible(signature)
            _write_graph(path, name, file)
            graph = onnx.OnnxModel(file, processor_count)
            twin = as_signature(graph, signature)
            difference = compare(saved, signature, twin)
            row = next(iter(_inputs(signature, 1)))
            timed = {
                "saved_model_ms": _milliseconds(lambda s=signature, r=row: saved.predict(s, r)),
                "onnx_ms": _milliseconds(lambda t=twin, r=row: t(r)),
            }
            result.converted[name] = {"file": file.name, "difference": difference, **timed}
        except (Disagrees, LoadFailed) as fault:
            result.left[name] = str(fault)
        except Exception as error:  # a converter meets whatever the world exports
            result.left[name] = (
                f"tf2onnx can't convert it: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            )
    return result


def as_signature(graph: Any, signature: Signature) -> Callable[[Tensors], Tensors]:
    """A loaded graph as a call of a signature. Raises `Disagrees` where its inputs or outputs are others."""
    own = graph.signatures[graph.default_signature]
    for wanted, found, what in ((signature.inputs, own.inputs, "inputs"), (signature.outputs, own.outputs, "outputs")):
        names, others = {spec.name for spec in wanted}, {spec.name for spec in found}
        if names != others:
            raise Disagrees(f"the graph's {what} are {sorted(others)}, not {sorted(names)}")

    def call(inputs: Tensors) -> Tensors:
        outputs = graph.predict(own, inputs)
        return {spec.name: outputs[spec.name] for spec in signature.outputs}

    return call


def compare(saved: TensorRuntime, signature: Signature, twin: Callable[[Tensors], Tensors]) -> float:
    """The largest difference over several random inputs, relative to the tolerance's scale. Raises `Disagrees`."""
    largest, count = 0.0, 0
    for size in _BATCHES:
        for inputs in _inputs(signature, size):
            try:
                wanted = saved.predict(signature, inputs)
            except BadRequest:
                continue  # the model does not take such sizes
            try:
                found = twin(inputs)
            except Exception as error:
                raise Disagrees(
                    f"the graph fails where the SavedModel answers: {' '.join(str(error).split())[:300]}"
                ) from error
            for spec in signature.outputs:
                largest = max(largest, _difference(spec.name, wanted[spec.name], found[spec.name]))
            count += any(np.isfinite(array).all() for array in wanted.values() if array.dtype.kind in "fiub")
            break
    if count < _FEWEST_COMPARISONS:
        raise Disagrees("no inputs were found on which the two could be compared")
    return largest


def _difference(name: str, wanted: Array, found: Array) -> float:
    if wanted.dtype != found.dtype or wanted.shape != found.shape:
        raise Disagrees(f"output '{name}' is {found.dtype} {found.shape}, not {wanted.dtype} {wanted.shape}")
    if wanted.dtype.name not in TOLERANCES:
        if not np.array_equal(wanted, found):
            raise Disagrees(f"output '{name}' has other values")
        return 0.0
    relative, absolute = TOLERANCES[wanted.dtype.name]
    if not np.allclose(found, wanted, rtol=relative, atol=absolute, equal_nan=True):
        with np.errstate(invalid="ignore"):
            worst = float(np.nanmax(np.abs(found.astype("float64") - wanted.astype("float64")), initial=0.0))
        raise Disagrees(f"output '{name}' differs by up to {worst:.2g}, more than {relative:g} of it")
    finite = np.isfinite(wanted)
    return float(np.max(np.abs(found[finite].astype("float64") - wanted[finite].astype("float64")), initial=0.0))


def _inputs(signature: Signature, size: int) -> Iterator[dict[str, Array]]:
    """Random inputs with so many rows; the second try gives all dimensions that may vary the same size, as square products want."""
    for other in (_OTHER_SIZE, size):
        chance = np.random.default_rng(size)
        inputs: dict[str, Array] = {}
        for spec in signature.inputs:
            shape = tuple(
                (size if at == 0 else other) if length is None else length for at, length in enumerate(spec.shape or ())
            )
            kind = np.dtype(spec.dtype)
            values = chance.standard_normal(shape) if kind.kind == "f" else chance.integers(0, 2, shape)
            inputs[spec.name] = np.asarray(values).astype(kind)
        yield inputs


def _check_convertible(signature: Signature) -> None:
    for spec in (*signature.inputs, *signature.outputs):
        if spec.dtype == STRING:
            raise Disagrees(f"'{spec.name}' is text, which graphs are not converted with")
        if spec.dtype == "bfloat16":
            raise Disagrees(f"'{spec.name}' is bfloat16, which the two can't be compared in")
    for spec in signature.inputs:
        if spec.shape is None:
            raise Disagrees(f"the rank of '{spec.name}' is not known, so the two can't be compared")


def _write_graph(path: Path, signature: str, file: Path) -> None:
    """By tf2onnx' command, its documented interface, within this process, since TensorFlow takes seconds to import."""
    command: Any = import_module("tf2onnx.convert")
    options = ["--saved-model", str(path), "--tag", "serve", "--signature_def", signature, "--opset", str(_OPSET)]
    before, sys.argv = sys.argv, ["tf2onnx.convert", *options, "--output", str(file)]
    try:
        command.main()
    except SystemExit as ended:  # it says what it does not like on its output
        raise RuntimeError(f"it ended with {ended.code}") from ended
    finally:
        sys.argv = before


def _milliseconds(call: Callable[[], object]) -> float:
    taken: list[float] = []
    for _ in range(_TIMED_CALLS):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return round(sorted(taken)[len(taken) // 2] * 1000, 4)


def main() -> None:
    """See the module."""
    path, place, processor_count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    result = convert(path, place, processor_count)
    beside = place / f".{RESULT}.new"
    beside.write_text(json.dumps(asdict(result)), encoding="utf-8")
    beside.replace(place / RESULT)


if __name__ == "__main__":
    main()
