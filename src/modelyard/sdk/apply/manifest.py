"""The file: which resources it may hold, and all that is wrong with it at once.

A resource is written with the names that the SDK's own `create` takes, and what may stand there is read from that method's signature; a new
parameter of the SDK is a new field of the file.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from modelyard.kit.errors import Fault
from modelyard.sdk.errors import ManifestInvalid
from modelyard.sdk.groups.endpoints import AsyncEndpoints, AsyncStages
from modelyard.sdk.groups.experiments import AsyncExperiments
from modelyard.sdk.groups.models import AsyncModels
from modelyard.sdk.groups.nas_volumes import AsyncNasVolumes
from modelyard.sdk.groups.notebooks import AsyncNotebooks
from modelyard.sdk.groups.storage import AsyncStorage
from modelyard.sdk.groups.trainings import AsyncTrainings
from modelyard.wire import plain

ABSENT = "absent"
"""The field that says that a resource should not be there."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of resource in a file.

    Attributes:
        section: its key in the file; also the client's group, but for containers.
        word: for people.
        create: the method whose parameters are the fields.
        references: fields that name other resources, with their section. They may stand in the same file.
    """

    section: str
    word: str
    create: Callable[..., Any]
    references: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)


# In this order they are made, and in the opposite one taken away.
KINDS = (
    Kind("containers", "container", AsyncStorage.grant),
    Kind("nas_volumes", "NAS volume", AsyncNasVolumes.create),
    Kind("notebooks", "notebook", AsyncNotebooks.create),
    Kind("experiments", "experiment", AsyncExperiments.create),
    Kind("trainings", "training", AsyncTrainings.create, {"experiment": "experiments"}),
    Kind("models", "model", AsyncModels.create, {"training": "trainings"}),
    Kind("endpoints", "endpoint", AsyncEndpoints.create, {"models": "models"}),
    Kind("stages", "stage", AsyncStages.create, {"endpoint": "endpoints", "models": "models"}),
)
SECTIONS = {kind.section: kind for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Item:
    """One resource of the file.

    Attributes:
        fields: what was written, checked, without name and `absent`.
        where: its place in the file, for messages.
    """

    kind: Kind
    name: str
    fields: Mapping[str, Any]
    is_absent: bool
    where: str

    @property
    def key(self) -> str:
        """How it is asked for: its name; a stage's is unique only within its endpoint."""
        return f"{self.fields['endpoint']}/{self.name}" if self.kind.section == "stages" else self.name

    def names_in(self, reference: str) -> Sequence[str]:
        """The names that a reference of it has."""
        value = self.fields.get(reference)
        if value is None:
            return ()
        return [value] if isinstance(value, str) else list(cast(Mapping[str, Any], value))


# A request's own name: applying a file again asks for what is there, which does as well.
_NOT_IN_FILES = frozenset({"self", "idempotency_key"})


class _Loader(yaml.SafeLoader):
    """YAML as of version 1.2: `on`, `off`, `yes` and `no` are words, also as names of hyperparameters."""


_BOOLEAN = "tag:yaml.org,2002:bool"
_IS_BOOLEAN = re.compile("(?:true|True|TRUE|false|False|FALSE)$")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, _IS_BOOLEAN if tag == _BOOLEAN else pattern) for tag, pattern in resolvers]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_manifest(text: str) -> Sequence[Item]:
    """The resources of a YAML file (one document or several), in the order in which they are made. Raises `ManifestInvalid`."""
    try:
        documents: list[Any] = [document for document in yaml.load_all(text, _Loader) if document is not None]
    except yaml.YAMLError as error:
        raise ManifestInvalid([Fault("file", f"is not YAML: {' '.join(str(error).split())}")]) from None
    faults: list[Fault] = []
    items: list[Item] = []
    for document in documents:
        items += _items_of(document, faults)
    if not documents:
        faults.append(Fault("file", "is empty"))
    seen: dict[tuple[str, str], Item] = {}
    for item in items:
        first = seen.setdefault((item.kind.section, item.key), item)
        if first is not item:
            faults.append(
                Fault(item.where, f"the {item.kind.word} '{item.key}' stands in the file already ({first.where})")
            )
    if faults:
        raise ManifestInvalid(faults)
    order = [kind.section for kind in KINDS]
    return sorted(items, key=lambda item: order.index(item.kind.section))


def _items_of(document: Any, faults: list[Fault]) -> list[Item]:
    if not isinstance(document, dict):
        faults.append(Fault("file", f"must have sections: {', '.join(SECTIONS)}"))
        return []
    found: list[Item] = []
    for section, entries in cast(dict[Any, Any], document).items():
        kind = SECTIONS.get(str(section))
        if kind is None:
            faults.append(
                Fault(str(section), f"is no section{_near(str(section), SECTIONS)}; there are {', '.join(SECTIONS)}")
            )
        elif not isinstance(entries, list):
            faults.append(Fault(kind.section, "must be a list"))
        else:
            for number, entry in enumerate(cast(list[Any], entries)):
                item = _item_of(kind, entry, f"{kind.section}[{number}]", faults)
                found += [] if item is None else [item]
    return found


def _item_of(kind: Kind, entry: Any, where: str, faults: list[Fault]) -> Item | None:
    if not isinstance(entry, dict):
        faults.append(Fault(where, "must have fields, a name at least"))
        return None
    fields = {str(key): value for key, value in cast(dict[Any, Any], entry).items()}
    is_absent = fields.pop(ABSENT, False)
    if not isinstance(is_absent, bool):
        faults.append(Fault(f"{where}.{ABSENT}", "must be true or false"))
        return None
    shape = _shape_of(kind, is_partial=is_absent)
    try:
        checked = shape.model_validate(fields)
    except ValidationError as error:
        faults += [Fault(f"{where}.{path}", sentence) for path, sentence in _wrong(error, fields, shape)]
        return None
    given = ((name, getattr(checked, name)) for name in checked.model_fields_set)
    written = {name: value for name, value in given if value is not None}
    name = str(written.pop("name"))
    return Item(kind, name, written, is_absent, where)


@cache
def _shape_of(kind: Kind, *, is_partial: bool) -> type[BaseModel]:
    """What an entry must look like. Of one that should be absent only what names it is needed."""
    hints = get_type_hints(kind.create)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(kind.create).parameters.items():
        if name in _NOT_IN_FILES:
            continue
        is_needed = parameter.default is inspect.Parameter.empty
        if is_needed and is_partial and name not in {"name", "container", "endpoint"}:
            is_needed = False
        # A container's own parameter is called after it; in a file everything has a name.
        fields["name" if name == "container" else name] = (
            (hints[name], ...) if is_needed else (hints[name] | None, None)
        )
    config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
    return create_model(f"{kind.word} in a file", __config__=config, **fields)


def _wrong(error: ValidationError, fields: Mapping[str, Any], shape: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """What is wrong, by its place in the entry. Of a value that fits none of several forms, the form that it comes closest to is told."""
    found = {_walked(fault["loc"], fields): fault for fault in reversed(error.errors())}
    for path, fault in reversed(found.items()):
        if any(len(other) > len(path) and other[: len(path)] == path for other in found):
            continue
        known = shape.model_fields if len(path) == 1 else ()
        yield ".".join(path), _sentence(fault, path[-1], known)


def _walked(location: Sequence[int | str], fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The part of a location that stands in the file: pydantic names the forms that it tried as well."""
    path, value = (str(location[0]),), fields.get(str(location[0]))
    for part in location[1:]:
        if isinstance(value, dict) and part in value:
            path, value = (*path, str(part)), cast(dict[Any, Any], value)[part]
    return path


def _sentence(fault: Mapping[str, Any], field_name: str, known: Collection[str]) -> str:
    if fault["type"] == "extra_forbidden" and known:
        return f"{plain(fault)}{_near(field_name, known)}; there are {', '.join(known)}, {ABSENT}"
    return plain(fault)


def _near(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean '{close[0]}'?)" if close else ""
