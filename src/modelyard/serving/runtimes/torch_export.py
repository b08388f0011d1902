"""Programs of `torch.export` (`.pt2`): a graph with the dtypes and shapes that it was exported for, and no pickle."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import TensorSpec
from modelyard.serving.errors import LoadFailed
from modelyard.serving.runtimes.torch_module import TorchModule, dtype_word, last_line, use_processors

torch: Any = import_module("torch")


def open_model(path: Path, config: ServingConfig) -> TorchModule:
    """The exported program in a file. Raises `LoadFailed`."""
    use_processors(config.processor_count)
    try:
        program = torch.export.load(path)
        module = program.module()
    except Exception as error:
        raise LoadFailed(f"{path.name} can't be loaded as a program of torch.export: {last_line(error)}") from error
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    specs = [_spec(name, values.get(name), path) for name in program.graph_signature.user_inputs]
    example = program.example_inputs
    keywords = list(example[1]) if example and len(example) > 1 else []
    return TorchModule("pytorch_export", module, specs, keyword_names=keywords)


def _spec(name: Any, value: Any, path: Path) -> TensorSpec:
    if not isinstance(value, torch.Tensor):
        raise LoadFailed(f"{path.name} takes '{name}', which is no tensor; export the program with tensors only")
    tensor: Any = value
    shape = tuple(size if type(size) is int else None for size in tensor.shape)  # other sizes are symbols: dynamic
    return TensorSpec(str(name), dtype_word(tensor.dtype), shape)
