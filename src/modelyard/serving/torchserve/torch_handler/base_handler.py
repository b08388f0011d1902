"""The class that most handlers derive from: load the model, then preprocess, inference and postprocess for each request."""

from __future__ import annotations

import importlib.util
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from modelyard.serving.torchserve.utils.util import list_classes_from_module, load_label_mapping

torch: Any = import_module("torch")


class BaseHandler:
    """Serves a TorchScript file, or weights with the file of their model's class, as it is; derived classes change what they need.

    Attributes:
        model: the loaded module.
        device: where it computes.
        context, manifest: what `initialize` was given.
        mapping: of `index_to_name.json`, or None.
        initialized: whether `initialize` has run.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: dict[str, Any] | None = None
        self.device: Any = None
        self.initialized = False
        self.context: Any = None
        self.manifest: Any = None
        self.map_location: str | None = None
        self.explain = False
        self.target = 0
        self.model_yaml_config: dict[str, Any] = {}

    def initialize(self, context: Any) -> None:
        """Load the model of the archive; `context` tells where it is."""
        properties = context.system_properties
        gpu = properties.get("gpu_id")
        if torch.cuda.is_available() and gpu is not None:
            self.map_location, self.device = "cuda", torch.device(f"cuda:{gpu}")
        else:
            self.map_location, self.device = "cpu", torch.device("cpu")
        self.context = context
        self.manifest = context.manifest
        self.model_yaml_config = dict(getattr(context, "model_yaml_config", None) or {})
        model_dir = Path(properties["model_dir"])
        described = self.manifest["model"]
        serialized, model_file = described.get("serializedFile"), described.get("modelFile")
        if serialized:
            self.model = self._load(model_dir, serialized, model_file)
        elif model_file:
            self.model = self._load_pickled_model(str(model_dir), model_file, None)
        if hasattr(self.model, "eval"):
            self.model.eval()
        self.mapping = load_label_mapping(model_dir / "index_to_name.json")
        self.initialized = True

    def preprocess(self, data: Any) -> Any:
        """The rows as one tensor. A row is a list of numbers, or an object whose `data` or `body` is one."""
        return torch.as_tensor([_content(row) for row in data], device=self.device)

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's answer to a tensor. Whole numbers become floating point where the model's weights are."""
        with torch.inference_mode():
            return self.model(_like_weights(data.to(self.device), self.model), *args, **kwargs)

    def postprocess(self, data: Any) -> list[Any]:
        """One JSON value per row."""
        return data.tolist()

    def handle(self, data: Any, context: Any) -> Any:
        """Answer one request."""
        started = time.perf_counter()
        self.context = context
        answer = self.postprocess(self.inference(self.preprocess(data)))
        if context.metrics is not None:
            context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return answer

    def describe_handle(self) -> Any:
        """What the handler tells about itself: nothing here."""
        return None

    def _load(self, model_dir: Path, serialized: str, model_file: str | None) -> Any:
        path = model_dir / serialized
        if not path.is_file():
            raise FileNotFoundError(f"the archive names '{serialized}' as its model, but does not hold it")
        if model_file:
            return self._load_pickled_model(str(model_dir), model_file, str(path))
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        if path.suffix == ".onnx":
            return import_module("onnxruntime").InferenceSession(str(path))
        return self._load_torchscript_model(str(path))

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        return torch.jit.load(model_pt_path, map_location=self.device)

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        """The one module class of `model_file`, made without arguments, with the weights of `model_pt_path`."""
        path = Path(model_dir) / model_file
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"the archive names '{model_file}' as its model file, but does not hold it")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        classes = list_classes_from_module(module, torch.nn.Module)
        if len(classes) != 1:
            raise ValueError(f"{model_file} must define exactly one torch.nn.Module class; it defines {len(classes)}")
        model: Any = classes[0]()
        if model_pt_path:
            model.load_state_dict(_weights(model_pt_path, self.map_location))
        return model.to(self.device)


def _content(row: Any) -> Any:
    if isinstance(row, dict):
        fields = cast("dict[str, Any]", row)
        data = fields.get("data")
        row = fields.get("body") if data is None else data
    return row.tolist() if isinstance(row, torch.Tensor) else row


def _like_weights(data: Any, model: Any) -> Any:
    """A JSON row such as `[6, 3, 4, 1]` must not fail where `[6.0, 3, 4, 1]` works; embeddings keep their whole numbers."""
    if data.is_floating_point() or not hasattr(model, "parameters"):
        return data
    first = next(iter(model.parameters()), None)
    is_embedding = any(
        type(module).__name__.startswith("Embedding") or getattr(module, "original_name", "").startswith("Embedding")
        for module in model.modules()
    )
    return data if first is None or is_embedding or not first.is_floating_point() else data.to(first.dtype)


def _weights(path: str, location: str | None) -> Any:
    try:
        return torch.load(path, map_location=location, weights_only=True)
    except Exception as error:
        if "weights_only" not in str(error):
            raise
        return torch.load(path, map_location=location, weights_only=False)  # the archive's own code runs here anyway
