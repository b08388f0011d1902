"""A lone `.pt` or `.pth`: TorchScript, an exported program, or weights with their `model.py` beside them.

Which one it is stands in the file itself. Weights are read without running code; a pickled module is code of the model's owner and runs
only because this process lies in that owner's sandbox.
"""

from __future__ import annotations

import inspect
import sys
import zipfile
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, cast

from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import TensorSpec
from modelyard.serving.errors import LoadFailed
from modelyard.serving.runtimes import torch_export
from modelyard.serving.runtimes.torch_module import TorchModule, last_line, use_processors

torch: Any = import_module("torch")


def open_model(path: Path, config: ServingConfig) -> TorchModule:
    """The program in a file. Raises `LoadFailed`."""
    use_processors(config.processor_count)
    names = _names_inside(path)
    if any(name.endswith(("models/model.json", "serialized_exported_program.json")) for name in names):
        return torch_export.open_model(path, config)
    if any(name.endswith("constants.pkl") for name in names):
        return _script(path)
    return _eager(path)


def load_weights(path: Path, device: Any = "cpu") -> Any:
    """What `torch.save` wrote: without running code where that is possible. Raises whatever PyTorch raises."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        if "weights_only" not in str(error):
            raise
        return torch.load(path, map_location=device, weights_only=False)


def import_file(path: Path) -> Any:
    """A Python file of the model's as a module that its pickles can find by name. Raises `LoadFailed`."""
    name = path.stem
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadFailed(f"{path.name} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise LoadFailed(f"{path.name} imports '{error.name}', which this image does not have") from error
    except Exception as error:
        raise LoadFailed(f"{path.name} can't be imported: {type(error).__name__}: {last_line(error)}") from error
    return module


def only_module_class(module: Any, file_name: str) -> Any:
    """The one `torch.nn.Module` class that a file defines, as TorchServe wants it. Raises `LoadFailed`."""
    classes = [
        value
        for value in list(module.__dict__.values())
        if inspect.isclass(value) and issubclass(value, torch.nn.Module) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise LoadFailed(f"{file_name} must define exactly one torch.nn.Module class; it defines {len(classes)}")
    return classes[0]


def build_module(model_file: Path, weights: Any) -> Any:
    """The class of `model_file`, made without arguments, with weights put in. Raises `LoadFailed`."""
    model_class = only_module_class(import_file(model_file), model_file.name)
    try:
        module = model_class()
        module.load_state_dict(weights)
    except Exception as error:
        raise LoadFailed(
            f"the weights do not fit {model_class.__name__} of {model_file.name}: {' '.join(str(error).split())[:500]}"
        ) from error
    return module


def _names_inside(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _script(path: Path) -> TorchModule:
    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()
        arguments = module.forward.schema.arguments[1:]  # the first is self
    except Exception as error:
        raise LoadFailed(f"{path.name} can't be loaded as TorchScript: {last_line(error)}") from error
    specs: list[TensorSpec] = []
    for argument in arguments:
        if str(argument.type) == "Tensor":
            specs.append(TensorSpec(str(argument.name)))
        elif not argument.has_default_value():
            raise LoadFailed(f"{path.name} takes '{argument.name}' of type {argument.type}; only tensors can be served")
    return TorchModule("pytorch_torchscript", module, specs)


def _eager(path: Path) -> TorchModule:
    model_file = path.with_name("model.py")
    if model_file.is_file():
        import_file(model_file)  # a pickled module names its class by this module
    try:
        content = load_weights(path)
    except Exception as error:
        raise LoadFailed(f"{path.name} can't be read by torch.load: {last_line(error)}") from error
    module: Any = content
    if not isinstance(content, torch.nn.Module):
        if not model_file.is_file():
            raise LoadFailed(
                f"{path.name} holds weights only; put model.py with the module's class beside it, or save a TorchScript or torch.export program"
            )
        module = build_module(model_file, _state(content))
    module = module.eval()
    return TorchModule("pytorch_eager", module, [TensorSpec(name) for name in _parameters(module, path)])


def _state(content: Any) -> Any:
    """Checkpoints of training loops keep the weights under a key of their own."""
    if isinstance(content, dict):
        checkpoint = cast("dict[str, Any]", content)
        for key in ("state_dict", "model_state_dict", "model"):
            inner: Any = checkpoint.get(key)
            if isinstance(inner, dict):
                return cast("Any", inner)
    return cast("Any", content)


def _parameters(module: Any, path: Path) -> list[str]:
    parameters = list(inspect.signature(module.forward).parameters.values())
    names = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if not names:
        raise LoadFailed(f"forward() of the module in {path.name} takes no named tensor")
    return names
