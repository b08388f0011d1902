"""The catalogue of images, as data.

An image is a name that users choose and the content of an environment: a Python, a framework, pinned packages. The built-in catalogue is
`catalog.yaml` beside this file with its lock files; an administrator lays a file of the same form over it. Reading it needs no tool and no
database: what of the machine matters (GPUs, interpreters) is told by the caller. Building is the compute backend's business.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from modelyard.compute.port import Environment
from modelyard.wire import plain

CoreType = Literal["CPU", "GPU"]
Framework = Literal["TENSORFLOW", "PYTORCH", "ONNX", "SKLEARN", "PYTHON"]
Group = Literal["TRAINING", "NOTEBOOK", "SERVING"]

BUILT_IN = Path(__file__).with_name("catalog.yaml")
MAX_NAME_CHARACTERS = 100
_IDS = uuid.UUID("6a4b1ad6-0a5c-5d0e-9d38-0f6ce1b1a9a7")  # the namespace of image ids; never changes
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # where libyaml is there, a tenth of the time
_DISPLAY = {
    "TENSORFLOW": "TensorFlow",
    "PYTORCH": "PyTorch",
    "ONNX": "ONNX Runtime",
    "SKLEARN": "scikit-learn",
    "PYTHON": "Python",
}


@dataclass(frozen=True, slots=True)
class CatalogImage:
    """An image that users can choose.

    Attributes:
        id: a UUID that follows from the name alone, so it is the same on every machine.
        name: what users and the official client choose by; unique.
        groups: what it can be used for.
        framework_version: of an image without a framework the Python version.
        python_version: for people, e.g. `3.11`; `python` is what an interpreter must fit, the same or a specifier.
        requirements: pinned, in pip's form, one each.
        is_default: the one that is offered first among images of its framework and core type.
        is_deprecated: still works and is listed; new work should take another.
    """

    id: str
    name: str
    groups: tuple[Group, ...]
    core_type: CoreType
    framework: Framework
    framework_version: str
    python_version: str
    python: str
    requirements: tuple[str, ...]
    description: str = ""
    is_default: bool = False
    is_deprecated: bool = False


class CatalogInvalid(Exception):
    """A catalogue file can't be used; the message names the file, the entry and the field of each fault."""

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        super().__init__("; ".join(f"{path}: {fault}" for fault in faults))
        self.path = path
        self.faults = tuple(faults)


def load_catalog(
    path: Path | None = None, *, has_gpu: bool = False, python_versions: Collection[str] = ()
) -> tuple[CatalogImage, ...]:
    """The images on offer, in the files' order: the built-in ones, changed and extended by the file at `path` if there is one.

    Args:
        path: an administrator's file. An entry with a known name changes the fields that it names; `is_removed: true` takes it away.
        has_gpu: whether images for GPUs are offered.
        python_versions: the interpreters of this machine, e.g. `3.12`: images marked `is_only_where_found` need theirs among them.

    Raises `CatalogInvalid`.
    """
    entries = _read(BUILT_IN)
    if path is not None and path.exists():
        for name, changes in _read(path).items():
            entries[name] = entries[name].changed_by(changes) if name in entries else changes
    images: list[CatalogImage] = []
    for source in entries.values():
        entry = source.with_base(entries)
        if entry.is_removed:
            continue
        image = source.image(entry)  # also of those not offered here: a fault must not wait for a machine with a GPU
        is_here = not entry.is_only_where_found or image.python in python_versions
        if is_here and (has_gpu or image.core_type == "CPU"):
            images.append(image)
    return tuple(images)


def to_environment(image: CatalogImage) -> Environment:
    """The environment that the image stands for. Images with the same content share one."""
    version = ".".join(image.framework_version.split(".")[:2])
    name = f"{_DISPLAY[image.framework]} {version} ({image.core_type})"
    return Environment(name=name, python=image.python, requirements=image.requirements, core_type=image.core_type)


def choose_image(
    images: Iterable[CatalogImage], framework: str, version: str | None = None, core_type: CoreType = "CPU"
) -> CatalogImage | None:
    """The image that fits a framework and the version that a model was made with, best first:

    the same version, the same major and minor version, the next newer of the same major version (frameworks read what older
    releases wrote), the newest of the same major version, the default. None where the framework has no image at all. Images that are for
    notebooks alone hold no model server and don't count.
    """
    fitting = [
        image
        for image in images
        if image.framework == framework and image.core_type == core_type and image.groups != ("NOTEBOOK",)
    ]
    ranked = sorted(fitting, key=lambda image: (image.is_deprecated, not image.is_default))
    if not ranked:
        return None
    wanted = _version(version)
    if wanted is None:
        return ranked[0]
    return min(ranked, key=lambda image: _distance(image, wanted))


class _Entry(BaseModel):
    """An entry as it is written. Everything but the name may be missing where `same_as`, or a file below, gives it."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
    same_as: str | None = None
    framework: Framework | None = None
    framework_version: Annotated[str, AfterValidator(lambda text: _checked_version(text))] | None = None
    python: Annotated[str, AfterValidator(lambda text: _checked_python(text))] | None = None
    python_version: str | None = None
    core_type: CoreType | None = None
    groups: tuple[Group, ...] | None = None
    lock: str | None = None
    requirements: Annotated[tuple[str, ...], AfterValidator(lambda lines: _checked_requirements(lines))] = ()
    without: tuple[str, ...] = ()
    description: Annotated[str, Field(max_length=255)] = ""
    is_default: bool = False
    is_deprecated: bool = False
    is_removed: bool = False
    is_only_where_found: bool = False


@dataclass(frozen=True, slots=True)
class _Source:
    """An entry with the file that it comes from, for messages; `locks` has the lines of the lock file that the entry names."""

    path: Path
    entry: _Entry
    locked: tuple[str, ...] | None = None

    def changed_by(self, later: _Source) -> _Source:
        """The entry with the fields that a later file names."""
        changed = self.entry.model_copy(update=later._named())
        return _Source(later.path, changed, later.locked if later.locked is not None else self.locked)

    def with_base(self, entries: Mapping[str, _Source], seen: tuple[str, ...] = ()) -> _Entry:
        """The entry filled with what its `same_as` names; requirements are complete afterwards."""
        entry = self.entry
        if entry.same_as is None:
            return entry.model_copy(update={"requirements": self._requirements(())})
        if entry.same_as in (*seen, entry.name):
            raise self.fault("same_as", f"leads back to '{entry.same_as}'")
        base = entries.get(entry.same_as)
        if base is None:
            raise self.fault("same_as", f"there is no image '{entry.same_as}'")
        filled = base.with_base(entries, (*seen, entry.name))
        inherited = {"is_default": False, "is_removed": False, "is_only_where_found": False, "description": ""}
        named = self._named()
        requirements = self._requirements(filled.requirements)
        return filled.model_copy(update={**inherited, **named, "requirements": requirements})

    def image(self, entry: _Entry) -> CatalogImage:
        """The finished image; every field must be known now."""
        needed = {
            name: getattr(entry, name) for name in ("framework", "framework_version", "python", "core_type", "groups")
        }
        for name, value in needed.items():
            if not value:
                raise self.fault(name, "is missing")
        return CatalogImage(
            id=str(uuid.uuid5(_IDS, entry.name)),
            name=entry.name,
            python_version=entry.python_version or _plain_python(entry.python or ""),
            requirements=entry.requirements,
            description=entry.description,
            is_default=entry.is_default,
            is_deprecated=entry.is_deprecated,
            **needed,
        )

    def fault(self, field: str, sentence: str) -> CatalogInvalid:
        """A fault of this entry."""
        return CatalogInvalid(self.path, [f"image '{self.entry.name}', {field}: {sentence}"])

    def _named(self) -> dict[str, Any]:
        return {name: getattr(self.entry, name) for name in self.entry.model_fields_set}

    def _requirements(self, inherited: tuple[str, ...]) -> tuple[str, ...]:
        """A lock replaces what was inherited; `without` takes names out of it; the entry's own requirements replace same names."""
        own = self.entry.requirements
        dropped = {canonicalize_name(name) for name in self.entry.without} | {_name(line) for line in own}
        kept = [line for line in (self.locked if self.locked is not None else inherited) if _name(line) not in dropped]
        return (*kept, *own)


def _read(path: Path) -> dict[str, _Source]:
    """The entries of one file by name, each checked by itself. All faults of the file are told at once."""
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), _SAFE_LOADER)  # noqa: S506  # both are safe
    except yaml.YAMLError as error:
        raise CatalogInvalid(path, [f"not valid YAML: {' '.join(str(error).split())}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogInvalid(path, [f"can't be read: {error}"]) from None
    listed: Any = cast("dict[str, Any]", content).get("images") if isinstance(content, dict) else None
    if content is None or (isinstance(content, dict) and content == {"images": None}):
        return {}
    if not isinstance(listed, list):
        raise CatalogInvalid(path, ["must be a mapping with the key 'images' and a list of images under it"])
    entries: dict[str, _Source] = {}
    faults: list[str] = []
    for position, raw in enumerate(cast("list[Any]", listed), start=1):
        label = f"image '{raw['name']}'" if isinstance(raw, dict) and "name" in raw else f"entry {position}"
        try:
            entry = _Entry.model_validate(raw)
            if entry.name in entries:
                faults.append(f"{label}, name: is there twice")
            entries[entry.name] = _Source(path, entry, _locked(path, entry.lock))
        except ValidationError as error:
            faults += [f"{label}, {_sentence(each)}" for each in error.errors()]
        except ValueError as error:
            faults.append(f"{label}, lock: {error}")
    if faults:
        raise CatalogInvalid(path, faults)
    return entries


def _sentence(error: Mapping[str, Any]) -> str:
    """A fault of pydantic's as `field: what is wrong`."""
    field = ".".join(str(part) for part in error["loc"]) or "the entry"
    if error["type"] == "extra_forbidden":
        return f"{field}: is not a known field (known are {', '.join(_Entry.model_fields)})"
    if error["type"] == "string_type":
        return f"{field}: must be a text; put it in quotes"
    message = plain(error)
    return f"{field}: {message[:1].lower()}{message[1:]}"


def _locked(path: Path, lock: str | None) -> tuple[str, ...] | None:
    """The lines of a lock file beside the catalogue file."""
    if lock is None:
        return None
    try:
        text = (path.parent / lock).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"'{lock}' can't be read: {error}") from None
    return _checked_requirements(tuple(bare for line in text.splitlines() if (bare := line.partition("#")[0].strip())))


def _checked_requirements(lines: tuple[str, ...]) -> tuple[str, ...]:
    for line in lines:
        try:
            _name(line)
        except InvalidRequirement as error:
            raise ValueError(f"'{line}' is not a requirement ({' '.join(str(error).split())})") from None
    return lines


def _checked_version(text: str) -> str:
    if _version(text) is None:
        raise ValueError(f"'{text}' is not a version")
    return text


def _checked_python(text: str) -> str:
    try:
        specifier = SpecifierSet(f"=={text}.*" if text[:1].isdigit() else text)
    except InvalidSpecifier:
        raise ValueError(f"'{text}' is neither a Python version nor a specifier such as '>=3.9,<3.12'") from None
    if not len(specifier):
        raise ValueError("must not be empty")
    return text


def _plain_python(python: str) -> str:
    return python if python[:1].isdigit() else python.replace(",", " ")


@lru_cache(maxsize=4096)
def _name(line: str) -> str:
    """The package that a line asks for. Remembered: the lock files of a catalogue name the same few hundred lines thousands of times."""
    return canonicalize_name(Requirement(line).name)


def _version(text: str | None) -> Version | None:
    try:
        return Version(text) if text else None
    except InvalidVersion:
        return None


def _distance(image: CatalogImage, wanted: Version) -> tuple[int, Version | int, bool]:
    """How far an image is from a wanted version; smaller is better. The plain (default) name wins among equals."""
    version = Version(image.framework_version)
    if version == wanted:
        return (0, 0, not image.is_default)
    if version.release[:2] == wanted.release[:2]:
        return (1, 0, not image.is_default)
    if version.major == wanted.major:
        return (2, version, not image.is_default) if version > wanted else (3, -version.minor, not image.is_default)
    return (4, 0, not image.is_default)
