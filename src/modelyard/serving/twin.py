"""A SavedModel that ONNX Runtime answers for, once it was seen to answer the same.

The SavedModel serves from the start. Beside it, at the lowest priority, the tools are installed, its signatures converted and compared (`convert`);
signatures that agree then change over between two requests. Whatever goes wrong is a note in the log, and the SavedModel goes on. What was
converted lies among the layers of the project's cache (or in the instance's directory), so that other replicas on the machine have it at once.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Generator, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.serving.config import ServingConfig
from modelyard.serving.contract import Signature, TensorRuntime, Tensors
from modelyard.serving.convert import RESULT, Disagrees, as_signature, compare
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
            self._take(*self._converted())
        except LoadFailed as failure:
            _say(f"the SavedModel goes on without ONNX: {failure.message}")
        except Exception as error:
            _say(f"the SavedModel goes on without ONNX: {type(error).__name__}: {error}")

    def _converted(self) -> tuple[Path, Path, bool]:
        """The directories of the result and of the tools, and whether the result was made now. Raises `LoadFailed`."""
        root = _place(self._config)
        tools_key = _tools_key()
        tools, place = root / tools_key, root / _name(tools_key, _digest(self._path))
        with _locked(
            root / "onnx.lock"
        ):  # all processes and replicas of a project on this machine convert once, one after the other
            if not tools.is_dir():
                _make(tools, _install)
            is_new = not place.is_dir()
            if is_new:
                _make(place, lambda draft: self._convert(draft, tools))
        return place, tools, is_new

    def _convert(self, place: Path, tools: Path) -> None:
        command = [str(tools / "bin" / "python"), "-m", "modelyard.serving.convert"]
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

    def _take(self, place: Path, tools: Path, is_new: bool) -> None:
        packages = sysconfig.get_path("purelib", vars={"base": str(tools), "platbase": ""})
        if packages not in sys.path:
            sys.path.append(packages)  # behind the image's own
        onnx: Any = import_module("modelyard.serving.runtimes.onnx")
        result: Any = json.loads((place / RESULT).read_text(encoding="utf-8"))
        for name, found in result["converted"].items():
            graph = onnx.OnnxModel(place / found["file"], self._config.processor_count)
            call = as_signature(graph, self.signatures[name])
            if not is_new:  # others of the project may write where it lay
                try:
                    compare(self._saved, self.signatures[name], call)
                except Disagrees as fault:
                    _say(f"signature '{name}' stays with the SavedModel: of the graph that was kept, {fault}")
                    continue
            self._calls[name] = call
            _say(
                f"ONNX Runtime answers signature '{name}' from now on: it differs by at most {found['difference']:.1e} and takes "
                f"{found['onnx_ms']:g} ms for a row, the SavedModel {found['saved_model_ms']:g} ms"
            )
        for name, reason in result["left"].items():
            _say(f"signature '{name}' stays with the SavedModel: {reason}")


def _place(config: ServingConfig) -> Path:
    """Where results and tools lie: in the project's cache, whose keeper takes away what was not used for long; else in the instance."""
    if config.cache_dir:
        shared = Path(config.cache_dir) / "layers"
        with contextlib.suppress(OSError):
            shared.mkdir(exist_ok=True)
            if os.access(shared, os.W_OK):
                return shared
    own = Path(config.work_dir or config.model_dir) / ".onnx"
    own.mkdir(exist_ok=True)
    return own


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold a lock that ends with the process."""
    while True:
        # Without O_CREAT first: in a sticky directory the kernel refuses O_CREAT on a file of somebody else (fs.protected_regular).
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            break
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            break
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(target: Path, make: Callable[[Path], None]) -> None:
    """Have a directory made where nobody else can write, which takes its name when it is whole. Its lock is held."""
    for remains in target.parent.glob(f".{target.name}-*"):
        shutil.rmtree(remains, ignore_errors=True)
    draft = target.with_name(f".{target.name}-{os.getpid():x}-{time.time_ns():x}")
    draft.mkdir(mode=0o700)
    try:
        make(draft)
        for directory, names, files in os.walk(draft):
            for path in (Path(directory, name) for name in (*names, *files)):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & 0o755)
        draft.chmod(0o755)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _install(tools: Path) -> None:
    requirements = tools / "tools.txt"
    requirements.write_text("\n".join(_tools()) + "\n", encoding="utf-8")
    install_requirements(requirements, tools, what="the tools of the conversion", is_alone=True)


def _tools() -> tuple[str, ...]:
    return _TOOLS[int(np.__version__.partition(".")[0])]


def _tools_key() -> str:
    """Names the tools by what they are and what they run beside."""
    beside = (f"{name}=={_version(name)}" for name in ("numpy", "protobuf", "tensorflow"))
    return _name(*_tools(), *beside, sys.version, os.uname().machine, sysconfig.get_path("purelib"))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _name(*parts: str) -> str:
    """64 hex digits, as the names of layers are."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


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
