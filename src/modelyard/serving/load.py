"""Find the artifact, open it with the runtime of its kind, and make the first prediction."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from modelyard.serving.batching import BatchedRows, BatchedTensors, InFlight
from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import TensorRuntime, zeros
from modelyard.serving.errors import LoadFailed
from modelyard.serving.find import Kind, find_artifact, version_of
from modelyard.serving.paths import ServedName
from modelyard.serving.service import RowService, Service, TensorService

_MAX_WAITING_THREADS = 64
# The modules are imported when they are needed: each brings a framework that only its own images have.
_RUNTIMES = {
    Kind.SAVED_MODEL: ("tensorflow", "TensorFlow"),
    Kind.TORCH_ARCHIVE: ("torch_archive", "PyTorch"),
    Kind.TORCH_EXPORT: ("torch_export", "PyTorch"),
    Kind.TORCH_FILE: ("torch_file", "PyTorch"),
    Kind.ONNX: ("onnx", "ONNX Runtime"),
    Kind.SKLEARN: ("sklearn", "scikit-learn"),
}


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to answer.

    Attributes:
        service: the model behind its protocols.
        threads: how many prediction threads it should have.
        may_be_done_here: whether small, quick requests may be answered on the event loop.
        afterwards: what is to be begun when the model server has said that it is ready.
    """

    service: Service
    threads: int
    may_be_done_here: bool
    afterwards: Callable[[], None] | None = None


def load(config: ServingConfig, in_flight: InFlight) -> Loaded:
    """Load the configured model; `in_flight` is for batches. Raises `LoadFailed` with one sentence for the model's owner."""
    root = Path(config.model_dir)
    artifact = find_artifact(root, config.format)
    module_name, framework = _RUNTIMES[artifact.kind]
    try:
        module: Any = import_module(f"modelyard.serving.runtimes.{module_name}")
    except ImportError as error:
        raise LoadFailed(f"{artifact.path.name} needs {framework}, which this image does not have ({error})") from error
    served = ServedName(config.model_name, version_of(artifact, root) or config.model_version)
    runtime: Any = module.open_model(artifact.path, config)
    is_batched = config.max_batch_size > 1
    # Each request of a batch waits in a thread of its own.
    waiting = min(2 * config.max_batch_size, _MAX_WAITING_THREADS)
    if not hasattr(runtime, "signatures"):
        rows = BatchedRows(runtime, config, in_flight) if is_batched else runtime
        return Loaded(RowService(rows, served), waiting if is_batched else 1, may_be_done_here=False)
    if config.warm_up:
        _warm_up(runtime)
    afterwards = None
    if config.converts_to_onnx:
        if artifact.kind is Kind.SAVED_MODEL:
            twin: Any = import_module("modelyard.serving.twin")
            runtime = twin.Twin(runtime, artifact.path, config)
            afterwards = runtime.begin
        else:
            print("model server: only SavedModels are converted to ONNX", file=sys.stderr, flush=True)
    if is_batched:
        tensors = BatchedTensors(runtime, config, in_flight)
        return Loaded(TensorService(tensors, served), waiting, False, afterwards)
    return Loaded(TensorService(runtime, served), config.threads or config.processor_count, True, afterwards)


def _warm_up(runtime: TensorRuntime) -> None:
    """Frameworks make up their minds at the first call; a user should not wait for that. Zeros may be wrong for a model."""
    signature = runtime.signatures[runtime.default_signature]
    if any(spec.shape is None for spec in signature.inputs):
        return
    try:
        runtime.predict(signature, {spec.name: zeros(spec) for spec in signature.inputs})
    except Exception as error:
        print(f"model server: no warm-up, the model refuses zeros: {error}", file=sys.stderr, flush=True)
