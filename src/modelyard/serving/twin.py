"""A SavedModel that ONNX Runtime answers for, once it was seen to answer the same.

The SavedModel serves from the start. Beside it, at the lowest priority, the tools are installed, its signatures converted and compared (`convert`);
signatures that agree then change over between two requests. Whatever goes wrong is a note in the log, and the SavedModel goes on. What was
converted lies in the instance's directory, so that a process that starts again, or another of the same server, has it at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import Signature, TensorRuntime, Tensors
from modelyard.serving.convert import RESULT, as_signature
from modelyard.serving.errors import BadRequest, LoadFailed
from modelyard.serving.runtimes.overlay import install_requirements

_CONVERT_SECONDS = 1800.0
_SHOWN_OUTPUT = 300
# Releases that were tried together: with TensorFlow 2.21 (NumPy 2), and with 2.15 (NumPy 1). What else they need the image has.
_TOOLS = {
    2: ("tf2onnx==1.17.0", "onnx==1.23.2", "onnxruntime==1.32.0"),
    1: ("tf2onnx==1.17.0", "onnx==1.17.0", "onnxruntime==1.23.2"),
}


class Twin:
    """A `TensorRuntime`: a SavedModel and, for the signatures that agree, its ONNX graphs."""

    def __init__(self, saved: TensorRuntime, path: Path, config: ServingConfig) -> None:
        self.signatures: Mapping[str, Signature] = saved.signatures
        self.default_signature = saved.default_signature
        self._saved = saved
        self._path = path
        self._config = config
        self._calls: dict[str, Callable[[Tensors], Tensors]] = {}

    @property
    def platform(self) -> str:
        """What answers the default signature."""
        return "onnxruntime_onnx" if self.default_signature in self._calls else self._saved.platform

    def predict(self, signature: Signature, inputs: Tensors) -> Tensors:
        """See `TensorRuntime`. What a graph refuses is the SavedModel's to answer, or to refuse in its words."""
        call = self._calls.get(signature.name)
        if call is not None:
            try:
                return call(inputs)
            except BadRequest:
                pass
        return self._saved.predict(signature, inputs)

    def close(self) -> None:
        """Close both."""
        self._calls.clear()
        self._saved.close()

    def begin(self) -> None:
        """Convert from now on, in a thread that nobody waits for."""
        threading.Thread(target=self._change_over, name="convert", daemon=True).start()

    def _change_over(self) -> None:
        try:
            self._take(self._converted())
        except LoadFailed as failure:
            _say(f"the SavedModel goes on without ONNX: {failure.message}")
        except Exception as error:
            _say(f"the SavedModel goes on without ONNX: {type(error).__name__}: {error}")

    def _converted(self) -> Path:
        """The directory with the result, made now if no process of this server has made it before. Raises `LoadFailed`."""
        root = Path(self._config.work_dir or self._config.model_dir) / ".onnx"
        root.mkdir(exist_ok=True)
        with (root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the processes of a server convert once
            place = root / _digest(self._path)
            if not (place / RESULT).is_file():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                _install(root)
                self._convert(place, root)
            return place

    def _convert(self, place: Path, root: Path) -> None:
        command = [str(root / "tools" / "bin" / "python"), "-m", "modelyard.serving.convert"]
        command += [str(self._path), str(place), str(self._config.processor_count)]
        started = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_CONVERT_SECONDS, check=False,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise LoadFailed(f"the conversion took longer than {_CONVERT_SECONDS:g} s") from error
        if done.returncode == -9:
            raise LoadFailed("the conversion was killed, most likely since it took more memory than the flavor has")
        if done.returncode != 0:
            raise LoadFailed(f"the conversion failed: {_last_line(done.stderr or done.stdout)}")
        _say(f"converted and compared in {time.monotonic() - started:.0f} s")

    def _take(self, place: Path) -> None:
        packages = sysconfig.get_path("purelib", vars={"base": str(place.parent / "tools"), "platbase": ""})
        if packages not in sys.path:
            sys.path.append(packages)  # behind the image's own
        onnx: Any = import_module("modelyard.serving.runtimes.onnx")
        result: Any = json.loads((place / RESULT).read_text(encoding="utf-8"))
        for name, found in result["converted"].items():
            graph = onnx.OnnxModel(place / found["file"], self._config.processor_count)
            self._calls[name] = as_signature(graph, self.signatures[name])
            _say(
                f"ONNX Runtime answers signature '{name}' from now on: it differs by at most {found['difference']:.1e} and takes "
                f"{found['onnx_ms']:g} ms for a row, the SavedModel {found['saved_model_ms']:g} ms"
            )
        for name, reason in result["left"].items():
            _say(f"signature '{name}' stays with the SavedModel: {reason}")


def _install(root: Path) -> None:
    tools = root / "tools"
    if (tools / ".whole").exists():
        return
    shutil.rmtree(tools, ignore_errors=True)
    requirements = root / "tools.txt"
    requirements.write_text("\n".join(_TOOLS[int(np.__version__.partition(".")[0])]) + "\n", encoding="utf-8")
    install_requirements(requirements, tools, what="the tools of the conversion", is_alone=True)
    (tools / ".whole").touch()


def _digest(path: Path) -> str:
    """Names the SavedModel by its graph and the list of its variables' values, which carries a checksum of each."""
    digest = hashlib.sha256()
    for name in ("saved_model.pb", "saved_model.pbtxt", "variables/variables.index"):
        if (path / name).is_file():
            digest.update((path / name).read_bytes())
    return digest.hexdigest()[:32]


def _last_line(text: str) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["it gave no reason"])[-1][:_SHOWN_OUTPUT]


def _say(text: str) -> None:
    print(f"model server: {text}", file=sys.stderr, flush=True)
