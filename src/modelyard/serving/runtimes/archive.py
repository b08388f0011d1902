"""What is in a PyTorch archive and its `config.properties`, read without PyTorch and without trusting either.

An archive (`.mar`) is a zip file with `MAR-INF/MANIFEST.json`, the weights, and the Python files of its author, made by `torch-model-archiver`.
Beside it lies the configuration of TorchServe, whose `models` or `model_snapshot` say under which name the archive is served: the name
that the platform's guide asks users to give their model.
Sources: https://github.com/pytorch/serve/blob/master/model-archiver/README.md and .../docs/configuration.md
"""

from __future__ import annotations

import json
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from modelyard.serving.errors import LoadFailed

MANIFEST = "MAR-INF/MANIFEST.json"
_MAX_UNPACKED_BYTES = 64 * 1024**3
_MAX_RATIO = 200  # weights hardly shrink; a bomb shrinks a thousandfold
_MIN_SUSPECT_BYTES = 256 * 1024**2
_MAX_ENTRIES = 100_000
_COPY_BYTES = 1024 * 1024
_SUFFIXES = (".mar", ".tar.gz")
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True)
class Manifest:
    """`MANIFEST.json` of an archive.

    Attributes:
        model_name, model_version: as the archiver was told.
        handler: a built-in handler's name, `file.py`, or `file.py:function`.
        serialized_file, model_file, requirements_file, config_file: names of files in the archive, or None.
        document: the whole document, which handlers see as `context.manifest`.
    """

    model_name: str
    handler: str
    model_version: str = "1.0"
    serialized_file: str | None = None
    model_file: str | None = None
    requirements_file: str | None = None
    config_file: str | None = None
    document: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class ArchiveChoice:
    """The archive to serve: a file, or a folder that holds what an archive holds.

    Attributes:
        path: where it is.
        is_named: whether a configuration gives it the configured name, so that the name in its manifest does not matter.
        settings: what the configuration says about this model (`batchSize`, `responseTimeout` …).
        envelope: the `service_envelope` of the configuration, or None.
    """

    path: Path
    is_named: bool
    settings: Mapping[str, Any]
    envelope: str | None


def choose_archive(root: Path, model_name: str) -> ArchiveChoice:
    """The archive that `root`'s configuration serves as `model_name`; without a configuration, the one whose manifest has the name.

    Raises:
        LoadFailed: the names differ (both are told), or there is no archive.
    """
    properties = _configuration(root)
    envelope = properties.get("service_envelope") or None
    archives = _archives(root)
    if not archives:
        raise LoadFailed("config.properties is there, but no .mar archive lies beside it or in its model store")
    models = _configured_models(properties)
    if models:
        if model_name not in models:
            raise LoadFailed(
                f"config.properties has the model {_listed(models)}, but the model is called '{model_name}' here; both names must be the same"
            )
        settings = models[model_name]
        path = _by_name(archives, str(settings.get("marName") or model_name), root)
        return ArchiveChoice(path, True, settings, envelope)
    named = {read_manifest(path).model_name: path for path in archives}
    if model_name not in named:
        raise LoadFailed(
            f"the archive's manifest has the model {_listed(named)}, but the model is called '{model_name}' here; both names must be the same"
        )
    return ArchiveChoice(named[model_name], False, {}, envelope)


def read_manifest(path: Path) -> Manifest:
    """The manifest of an archive or folder. Raises `LoadFailed`."""
    try:
        document = json.loads(_manifest_text(path))
        model: Any = document["model"]
        name, handler = model["modelName"], model["handler"]
    except (KeyError, ValueError, TypeError) as error:
        raise LoadFailed(f"{path.name} has no proper {MANIFEST}: {type(error).__name__}: {error}") from error
    if not isinstance(name, str) or not isinstance(handler, str) or not handler:
        raise LoadFailed(f"{path.name} has a {MANIFEST} without a model name or handler")
    files = [
        _file_name(model.get(key), key, path)
        for key in ("serializedFile", "modelFile", "requirementsFile", "configFile")
    ]
    return Manifest(name, handler, str(model.get("modelVersion", "1.0")), *files, document=document)


def unpack(path: Path, target: Path) -> Path:
    """The folder with an archive's files: a folder is taken as it is, a file is unpacked into `target`.

    Nothing is written outside `target`: absolute names, `..`, links and devices are refused, and so is an archive that unpacks to far
    more than it holds.

    Raises:
        LoadFailed: the archive is broken or not to be trusted.
    """
    if path.is_dir():
        return path
    target.mkdir(parents=True, exist_ok=True)
    limit = min(_MAX_UNPACKED_BYTES, max(_MIN_SUSPECT_BYTES, path.stat().st_size * _MAX_RATIO))
    try:
        for name, size, stream in _members(path):
            limit -= size
            if limit < 0:
                raise LoadFailed(f"{path.name} unpacks to far more than it holds; it is not served")
            place = _safe_place(name, target, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            with stream, place.open("wb") as file:
                _copy(stream, file, size, path)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise LoadFailed(f"{path.name} can't be unpacked: {error}") from error
    return target


def parse_properties(text: str) -> dict[str, str]:
    """The entries of a Java properties file: `key=value` or `key: value`, comments, continued lines and escapes."""
    entries: dict[str, str] = {}
    for line in _logical_lines(text):
        match = re.match(r"((?:\\.|[^\\=:\s])*)\s*[=:\s]\s*(.*)", line, re.DOTALL)
        key, value = match.groups() if match else (line, "")
        entries[_unescaped(key)] = _unescaped(value)
    return entries


def _logical_lines(text: str) -> Iterator[str]:
    line = ""
    for raw in text.splitlines():
        piece = raw.lstrip()
        if not line and (not piece or piece[0] in "#!"):
            continue
        backslashes = len(piece) - len(piece.rstrip("\\"))
        if backslashes % 2:
            line += piece[:-1]
            continue
        yield (line + piece).rstrip()
        line = ""
    if line:
        yield line


def _unescaped(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        code = match.group(1)
        return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPES.get(code, code)

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", replace, text)


def _configuration(root: Path) -> dict[str, str]:
    for place in (
        root / "config" / "config.properties",
        root / "config.properties",
        *sorted(root.glob("*/config.properties")),
    ):
        if place.is_file():
            return parse_properties(place.read_text(encoding="utf-8", errors="replace"))
    return {}


def _configured_models(properties: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Names to settings, of `model_snapshot` (which wins in TorchServe), `models`, or `load_models` with names."""
    document: Any = {}
    for key in ("model_snapshot", "models"):
        if properties.get(key):
            try:
                document = json.loads(properties[key])
            except ValueError as error:
                raise LoadFailed(f"'{key}' of config.properties is not JSON: {error}") from error
            break
    if isinstance(document, dict) and isinstance(cast("dict[str, Any]", document).get("models"), dict):
        document = cast("dict[str, Any]", document)["models"]
    if not isinstance(document, dict):
        raise LoadFailed("the models of config.properties are not a JSON object")
    models = {str(name): _newest_settings(versions) for name, versions in cast("dict[str, Any]", document).items()}
    if not models:
        pairs = [entry.partition("=") for entry in properties.get("load_models", "").split(",")]
        models = {name.strip(): {"marName": mar.strip()} for name, separator, mar in pairs if separator}
    return models


def _newest_settings(versions: Any) -> dict[str, Any]:
    """A model's settings stand under its versions; the default version wins, else the last one."""
    if not isinstance(versions, dict):
        return {}
    of_versions = [
        cast("dict[str, Any]", value) for value in cast("dict[str, Any]", versions).values() if isinstance(value, dict)
    ]
    chosen = next((value for value in of_versions if value.get("defaultVersion") is True), None)
    return chosen or (of_versions[-1] if of_versions else {})


def _archives(root: Path) -> list[Path]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.name.endswith(_SUFFIXES)]
    return files + [path.parent.parent for path in sorted(root.rglob("MANIFEST.json")) if path.parent.name == "MAR-INF"]


def _by_name(archives: list[Path], wanted: str, root: Path) -> Path:
    wanted = PurePosixPath(wanted).name
    for path in archives:
        if path.name in (wanted, f"{wanted}.mar") or (path.is_dir() and path.name == wanted.removesuffix(".mar")):
            return path
    found = ", ".join(str(path.relative_to(root)) for path in archives)
    raise LoadFailed(f"config.properties names the archive '{wanted}', but the artifact has {found}")


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def _manifest_text(path: Path) -> bytes:
    try:
        if path.is_dir():
            return (path / MANIFEST).read_bytes()
        if path.name.endswith(".tar.gz"):
            for name, _, stream in _members(path):
                if name == MANIFEST or name.endswith("/" + MANIFEST):
                    return stream.read()
            raise LoadFailed(f"{path.name} has no {MANIFEST}; make it with torch-model-archiver")
        with zipfile.ZipFile(path) as archive:
            return archive.read(MANIFEST)
    except KeyError as error:
        raise LoadFailed(f"{path.name} has no {MANIFEST}; make it with torch-model-archiver") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise LoadFailed(f"{path.name} can't be read as an archive: {error}") from error


def _file_name(value: Any, key: str, path: Path) -> str | None:
    if value is None or value == "":
        return None
    name = PurePosixPath(str(value).replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        raise LoadFailed(f"{path.name} names a file outside itself as {key}: {value}")
    return str(value)


def _members(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of each file. Raises `LoadFailed` for what is neither a file nor a directory."""
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name, member.size, content
                elif not member.isdir():
                    raise LoadFailed(f"{path.name} holds a link or device, '{member.name}'; it is not served")
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > _MAX_ENTRIES:
            raise LoadFailed(f"{path.name} holds {len(entries)} files; at most {_MAX_ENTRIES} are unpacked")
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise LoadFailed(f"{path.name} holds a link or device, '{entry.filename}'; it is not served")
            if not entry.is_dir():
                yield entry.filename, entry.file_size, archive.open(entry)


def _safe_place(name: str, target: Path, path: Path) -> Path:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\0" in name or ":" in parts.parts[0]:
        raise LoadFailed(f"{path.name} wants to write outside itself ('{name}'); it is not served")
    return target.joinpath(*parts.parts)


def _copy(stream: IO[bytes], file: IO[bytes], size: int, path: Path) -> None:
    """Copy what was announced and no more, since the announced size is what was counted."""
    left = size
    while left > 0 and (chunk := stream.read(min(_COPY_BYTES, left))):
        file.write(chunk)
        left -= len(chunk)
    if left or stream.read(1):
        raise LoadFailed(f"{path.name} is damaged: a file in it has not the size that it announces")
