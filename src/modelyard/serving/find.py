"""What lies in an artifact's directory. Looks at names only; opening is the runtimes' work.

The platform asks the same of a listing, when a model is made: both must come to the same answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from modelyard.serving.errors import LoadFailed

_DEPTH = 3
_SHOWN_NAMES = 8
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
_SKLEARN = (".joblib", ".pkl", ".pickle")


class Kind(Enum):
    """The kinds of artifacts, each with the format that it belongs to."""

    SAVED_MODEL = "TENSORFLOW"
    TORCH_ARCHIVE = "PYTORCH"
    TORCH_EXPORT = "PYTORCH export"
    TORCH_FILE = "PYTORCH file"
    ONNX = "ONNX"
    SKLEARN = "SKLEARN"

    @property
    def format(self) -> str:
        """The format of the configuration."""
        return self.value.partition(" ")[0]


@dataclass(frozen=True)
class Artifact:
    """Something that can be served: a directory for a SavedModel and a folder of an archive, else a file."""

    kind: Kind
    path: Path


def find_artifact(root: Path, wanted: str) -> Artifact:
    """The artifact in a directory: the one nearest to the top; of numbered directories side by side the highest number.

    Args:
        root: the directory of the artifact.
        wanted: a format of the configuration, or `auto`.

    Raises:
        LoadFailed: no such directory, or nothing in it that can be served.
    """
    if not root.is_dir():
        raise LoadFailed(f"the model directory {root} does not exist")
    files = (str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file())
    return _find(root, _entries, wanted) or _nothing_found([*files], wanted)


def find_among(names: Iterable[str], wanted: str) -> Artifact:
    """As `find_artifact`, of a listing: the names are relative, with `/` between their parts, and so is the path of the artifact."""
    tree: dict[Path, tuple[list[str], list[Path]]] = {Path(): ([], [])}
    for name in names:
        path = Path(name)
        for parent in reversed(path.parents):
            if parent not in tree:
                tree[parent] = ([], [])
                tree[parent.parent][1].append(parent)
        tree[path.parent][0].append(path.name)
    return _find(Path(), tree.__getitem__, wanted) or _nothing_found(sorted(names), wanted)


def version_of(artifact: Artifact, root: Path) -> str | None:
    """The number of the version directory that the artifact lies in, if it lies in one."""
    directory = artifact.path if artifact.path.is_dir() else artifact.path.parent
    return directory.name if directory != root and directory.name.isdigit() else None


_Entries = Callable[[Path], tuple[list[str], list[Path]]]


def _entries(directory: Path) -> tuple[list[str], list[Path]]:
    """Names of files, and directories."""
    entries = list(os.scandir(directory))
    return [entry.name for entry in entries if entry.is_file()], [
        Path(entry.path) for entry in entries if entry.is_dir()
    ]


def _find(root: Path, entries_of: _Entries, wanted: str) -> Artifact | None:
    for directory, names in _walk(root, entries_of):
        for artifact in _candidates(root, directory, names):
            if wanted in ("auto", artifact.kind.format):
                return artifact
    return None


def _walk(root: Path, entries_of: _Entries) -> Iterator[tuple[Path, list[str]]]:
    level = [root]
    for _ in range(_DEPTH + 1):
        below: list[Path] = []
        for directory in level:
            names, directories = entries_of(directory)
            yield directory, sorted(names)
            below += [each for each in directories if not each.name.startswith(".")]
        level = sorted(below, key=_newest_first)


def _newest_first(directory: Path) -> tuple[str, int, str]:
    number = int(directory.name) if directory.name.isdigit() and len(directory.name) < 19 else -1
    return (str(directory.parent), -number, directory.name)


def _candidates(root: Path, directory: Path, names: list[str]) -> Iterator[Artifact]:
    if any(name in names for name in _SAVED_MODEL):
        yield Artifact(Kind.SAVED_MODEL, directory)
    is_archive = any(name.endswith((".mar", ".tar.gz")) for name in names) or "config.properties" in names
    is_archive = is_archive or (directory.name == "MAR-INF" and "MANIFEST.json" in names)
    if is_archive or any(name.endswith("handler.py") for name in names):
        # Configuration and archive may lie in different directories, so the whole artifact is handed over.
        yield Artifact(Kind.TORCH_ARCHIVE, root if is_archive else directory)
    for suffixes, kind in (
        ((".pt2",), Kind.TORCH_EXPORT),
        ((".pt", ".pth"), Kind.TORCH_FILE),
        ((".onnx",), Kind.ONNX),
        (_SKLEARN, Kind.SKLEARN),
    ):
        for name in names:
            if name.endswith(suffixes):
                yield Artifact(kind, directory / name)


def _nothing_found(files: list[str], wanted: str) -> Artifact:
    raise LoadFailed(_complaint(files, wanted))


def _complaint(files: list[str], wanted: str) -> str:
    if not files:
        return "the model directory is empty"
    keras = next((name for name in files if name.endswith((".keras", ".h5", ".hdf5"))), None)
    if keras and wanted in ("auto", "TENSORFLOW"):
        return (
            f"{keras} is a file of Keras, not a SavedModel; write one with model.save(directory) in Keras 2 "
            "or model.export(directory) in Keras 3"
        )
    shown = ", ".join(files[:_SHOWN_NAMES]) + (
        f" and {len(files) - _SHOWN_NAMES} more" if len(files) > _SHOWN_NAMES else ""
    )
    looked_for = {
        "TENSORFLOW": "a SavedModel (saved_model.pb)",
        "PYTORCH": "a PyTorch model (.mar with config/config.properties, .pt2, .pt or .pth)",
        "ONNX": "an ONNX model (.onnx)",
        "SKLEARN": "a scikit-learn model (.joblib or .pkl)",
    }.get(wanted, "a model (a SavedModel, .mar, .pt2, .pt, .onnx, .joblib)")
    return f"the model directory holds no {looked_for.removeprefix('a ').removeprefix('an ')}; it has {shown}"
