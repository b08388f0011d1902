"""PyTorch archives run by the handler that their author wrote, through the contract that handlers know from TorchServe.

A handler is a module-level function `handle(data, context)` (or the one named after the colon of `file.py:function`), a class with
`initialize` and `handle`, a class with the three steps, or the name of a built-in one.
Source: https://docs.pytorch.org/serve/custom_service.html
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import Reply
from modelyard.serving.errors import LoadFailed, ModelFailed, Refusal
from modelyard.serving.runtimes import archive
from modelyard.serving.runtimes.archive import ArchiveChoice, Manifest
from modelyard.serving.runtimes.overlay import install_requirements
from modelyard.serving.runtimes.torch_file import import_file
from modelyard.serving.runtimes.torch_module import last_line, use_processors
from modelyard.serving.torchserve.offer import offer_ts

torch: Any = import_module("torch")

BUILT_IN = ("base_handler", "image_classifier", "image_segmenter", "object_detector", "text_classifier")
_UNPACKING_ENVELOPES = ("kserve", "kservev2", "json")
_STEPS = ("preprocess", "inference", "postprocess")
_NAMES_INSTANCES = re.compile(r"""['"]instances['"]""")


class HandlerRefusal(Refusal):
    """The handler chose the status itself (`PredictionException`)."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def open_model(path: Path, config: ServingConfig) -> ArchiveModel:
    """The archive that lies in `path` and is called as the configuration says. Raises `LoadFailed`."""
    use_processors(config.processor_count)
    choice = _choose(path, config.model_name)
    manifest = _manifest(choice, path, config)
    work_dir = Path(tempfile.mkdtemp(prefix="modelyard-serving-", dir=config.work_dir or None))
    folder = archive.unpack(choice.path, work_dir / "archive")
    _check_files(manifest, folder, choice.path)
    if manifest.requirements_file:
        install_requirements(folder / manifest.requirements_file, work_dir / "packages")
    return ArchiveModel(folder, work_dir, manifest, choice, config)


class ArchiveModel:
    """A handler with its model loaded; see `RowRuntime`.

    Args:
        folder: the archive's files.
        work_dir: what was made for this archive alone, removed when the model is closed.
        manifest: what the archive says about itself.
        choice: what the configuration says about the archive.
        config: parameters that the handler may read.
    """

    platform = "pytorch_archive"

    def __init__(
        self, folder: Path, work_dir: Path, manifest: Manifest, choice: ArchiveChoice, config: ServingConfig
    ) -> None:
        self._work_dir = work_dir
        offer_ts()
        sys.path.insert(0, str(folder))
        os.chdir(folder)  # handlers open the files of their archive by bare names
        self._context = _context(folder, manifest, choice, config)
        module, function = _import_handler(manifest.handler, folder)
        self._handle = self._entry(module, function, manifest.handler)
        self.unpacks_instances = _unpacks(choice.envelope, self._context.model_yaml_config, folder, manifest.handler)

    def answer(self, rows: Sequence[Any], headers: Mapping[str, str]) -> Reply:
        """Ask the handler; see `RowRuntime`."""
        context = self._context
        request_id = headers.get("x-inference-id") or headers.get("x-request-id") or str(uuid.uuid4())
        _begin(context, request_id, headers)
        try:
            result = self._handle(list(rows), context)
        except Exception as error:
            code = getattr(error, "error_code", None)
            if type(error).__name__ == "PredictionException" and isinstance(code, int):
                raise HandlerRefusal(
                    str(getattr(error, "message", error)), code if 400 <= code <= 599 else 500
                ) from error
            raise
        if inspect.isawaitable(result):
            raise ModelFailed("the handler is asynchronous; make handle() a plain function")
        status, response_headers = _said(context)
        return Reply(_rows(result, len(rows)), status, response_headers)

    def close(self) -> None:
        """Let the model go."""
        self._handle = _closed
        os.chdir("/")
        shutil.rmtree(self._work_dir, ignore_errors=True)

    def _entry(self, module: Any, function: str, name: str) -> Callable[[list[Any], Any], Any]:
        entry: Any = getattr(module, function, None)
        if callable(entry) and not inspect.isclass(entry):
            _loading(
                name, lambda: entry(None, self._context)
            )  # a function loads its model when it is called without data
            return entry
        handler_class = _handler_class(module, function, name)
        handler = _loading(name, handler_class)
        if hasattr(handler, "initialize"):
            _loading(name, lambda: handler.initialize(self._context))
        return handler.handle if hasattr(handler, "handle") else _three_steps(handler)


def _choose(path: Path, model_name: str) -> ArchiveChoice:
    has_archive = any(path.rglob("*.mar")) or any(path.rglob("*.tar.gz")) or any(path.rglob("MAR-INF"))
    if has_archive or any(path.rglob("config.properties")):
        return archive.choose_archive(path, model_name)
    return ArchiveChoice(path, True, {}, None)


def _manifest(choice: ArchiveChoice, root: Path, config: ServingConfig) -> Manifest:
    if choice.path.is_file() or (choice.path / archive.MANIFEST).is_file():
        return archive.read_manifest(choice.path)
    return _manifest_of_folder(root, config.model_name)


def _manifest_of_folder(folder: Path, model_name: str) -> Manifest:
    """A folder with `handler.py`, perhaps `model.py` and one file of weights, is an archive that was not packed."""
    handlers = sorted(folder.glob("*handler.py"))
    if len(handlers) != 1:
        raise LoadFailed(f"the folder holds {len(handlers)} files called *handler.py; exactly one is wanted")
    weights = sorted(path.name for pattern in ("*.pt", "*.pth", "*.bin", "*.pt2") for path in folder.glob(pattern))
    model_file = "model.py" if (folder / "model.py").is_file() else None
    described = {"modelName": model_name, "modelVersion": "1.0", "handler": handlers[0].name}
    described |= {"serializedFile": weights[0]} if weights else {}
    described |= {"modelFile": model_file} if model_file else {}
    requirements = "requirements.txt" if (folder / "requirements.txt").is_file() else None
    return Manifest(
        model_name,
        handlers[0].name,
        serialized_file=weights[0] if weights else None,
        model_file=model_file,
        requirements_file=requirements,
        document={"model": described},
    )


def _check_files(manifest: Manifest, folder: Path, path: Path) -> None:
    for name in (manifest.serialized_file, manifest.model_file, manifest.requirements_file, manifest.config_file):
        if name and not (folder / name).is_file():
            raise LoadFailed(f"{path.name} names '{name}' in its manifest, but does not hold it")


def _context(folder: Path, manifest: Manifest, choice: ArchiveChoice, config: ServingConfig) -> Any:
    context_class: Any = import_module("ts.context").Context
    batch_size = choice.settings.get("batchSize", 1)
    yaml_config = _yaml(folder / manifest.config_file) if manifest.config_file else {}
    context = context_class(
        config.model_name,
        str(folder),
        manifest.document,
        batch_size if isinstance(batch_size, int) else 1,
        0 if torch.cuda.is_available() else None,
        "0.12.0",
        True,
    )
    context.model_yaml_config = yaml_config
    context.system_properties["parameters"] = dict(config.parameters)
    return context


def _yaml(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    try:
        parsed: Any = json.loads(text)  # JSON is YAML too
    except ValueError:
        if find_spec("yaml") is None:
            raise LoadFailed(
                f"{path.name} of the archive is YAML, which needs PyYAML; add pyyaml to the archive's requirements.txt"
            ) from None
        yaml: Any = import_module("yaml")
        try:
            parsed = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise LoadFailed(f"{path.name} of the archive is not YAML: {' '.join(str(error).split())}") from error
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}


def _import_handler(name: str, folder: Path) -> tuple[Any, str]:
    file_name, _, function = name.partition(":")
    plain = file_name.removesuffix(".py")
    path = folder / f"{plain}.py"
    if path.is_file():
        return import_file(path), function or "handle"
    nested = [found for found in folder.rglob(f"{Path(plain).name}.py") if found.is_file()]
    if nested:
        return import_file(nested[0]), function or "handle"
    if plain in BUILT_IN:
        try:
            return import_module(f"ts.torch_handler.{plain}"), function or "handle"
        except ModuleNotFoundError as error:
            raise LoadFailed(
                f"the built-in handler '{plain}' needs '{error.name}', which this image does not have"
            ) from error
    raise LoadFailed(f"the archive's handler '{name}' is neither a file in it nor one of {', '.join(BUILT_IN)}")


def _handler_class(module: Any, function: str, name: str) -> Any:
    values: list[Any] = list(module.__dict__.values())
    own = [value for value in values if inspect.isclass(value) and value.__module__ == module.__name__]
    named = [value for value in own if value.__name__ == function]
    able = named or [value for value in own if hasattr(value, "handle") or all(hasattr(value, step) for step in _STEPS)]
    leaves = [value for value in able if not any(other is not value and issubclass(other, value) for other in able)]
    if len(leaves) != 1:
        found = ", ".join(value.__name__ for value in leaves) or "none"
        raise LoadFailed(
            f"the handler {name} must define handle(data, context) or exactly one class with it; it defines {found}"
        )
    return leaves[0]


def _three_steps(handler: Any) -> Callable[[list[Any], Any], Any]:
    return lambda rows, context: handler.postprocess(handler.inference(handler.preprocess(rows)))


def _loading(name: str, step: Callable[[], Any]) -> Any:
    try:
        return step()
    except LoadFailed:
        raise
    except ModuleNotFoundError as error:
        raise LoadFailed(f"the handler {name} imports '{error.name}', which this image does not have") from error
    except BaseException as error:
        raise LoadFailed(
            f"the handler {name} could not be initialized: {type(error).__name__}: {last_line(error)}"
        ) from error


def _unpacks(envelope: str | None, yaml_config: Mapping[str, Any], folder: Path, handler: str) -> bool:
    """Whether `instances` are the rows. Where nothing says so, a handler that reads the word itself gets the whole body."""
    envelope = envelope or cast("str | None", yaml_config.get("serviceEnvelope") or yaml_config.get("service_envelope"))
    if envelope:
        return envelope.strip().lower() in _UNPACKING_ENVELOPES
    path = folder / f"{handler.partition(':')[0].removesuffix('.py')}.py"
    return not (path.is_file() and _NAMES_INSTANCES.search(path.read_text(encoding="utf-8", errors="replace")))


def _begin(context: Any, request_id: str, headers: Mapping[str, str]) -> None:
    if hasattr(context, "begin"):
        context.begin(request_id, headers)
        return
    processor: Any = import_module("ts.context").RequestProcessor
    context.request_ids = {0: request_id}
    context.request_processor = [processor(dict(headers))]


def _said(context: Any) -> tuple[int | None, tuple[tuple[str, str], ...]]:
    processor = context.request_processor[0]
    status: Any = processor.get_response_status_code()
    headers: Any = processor.get_response_headers()
    return (status if isinstance(status, int) and 100 <= status <= 599 else None), tuple(
        (str(k).lower(), str(v)) for k, v in headers.items()
    )


def _rows(result: Any, count: int) -> list[Any]:
    if result is None:
        raise ModelFailed("the handler answered nothing (None); it must answer a list with one entry per row")
    if hasattr(result, "tolist"):
        result = result.tolist()
    if not isinstance(result, (list, tuple)):
        raise ModelFailed(f"the handler answered {type(result).__name__}; it must answer a list with one entry per row")
    answers = list(cast("Sequence[Any]", result))
    if len(answers) != count and len(answers) != 1:
        raise ModelFailed(f"the handler got {count} rows and answered {len(answers)}")
    return answers


def _closed(rows: list[Any], context: Any) -> Any:
    raise ModelFailed("the model is closed")
