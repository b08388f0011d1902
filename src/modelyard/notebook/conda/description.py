"""`environment.yml`: what people hand each other to make the same environment."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple, cast

from modelyard.notebook.conda.problems import Problem

_KNOWN = {"name", "prefix", "channels", "dependencies"}


class Description(NamedTuple):
    """A file's content: conda's packages, and those that pip installs after them."""

    name: str
    channels: tuple[str, ...]
    packages: tuple[str, ...]
    of_pip: tuple[str, ...]


def read(path: str) -> Description:
    """What a file describes. Raises `Problem` for one that describes nothing."""
    yaml: Any = import_module("yaml")
    try:
        with open(path, encoding="utf-8") as file:
            content: Any = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise Problem(f"{path} can't be read: {reason}") from None
    if not isinstance(content, dict):
        raise Problem(f"{path} is not a description of an environment: it needs 'dependencies:' with '- PACKAGE' lines")
    fields = cast("dict[str, Any]", content)
    unknown = sorted(set(fields) - _KNOWN)
    if unknown:
        print(f"{path}: {', '.join(unknown)} has no effect here.")
    packages: list[str] = []
    of_pip: list[str] = []
    for item in _listed(fields, "dependencies", path):
        if isinstance(item, dict):
            of_pip += map(str, _listed(cast("dict[str, Any]", item), "pip", path))
        else:
            packages.append(str(item))
    channels = tuple(map(str, _listed(fields, "channels", path)))
    return Description(str(fields.get("name") or ""), channels, tuple(packages), tuple(of_pip))


def text(description: Description) -> str:
    """The file for it."""
    yaml: Any = import_module("yaml")
    dependencies: list[Any] = [*description.packages]
    if description.of_pip:
        dependencies.append({"pip": [*description.of_pip]})
    content = {"name": description.name, "channels": [*description.channels], "dependencies": dependencies}
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _listed(fields: dict[str, Any], name: str, path: str) -> list[Any]:
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Problem(f"{path}: '{name}' must be a list, one '- …' a line")
    return cast("list[Any]", value)
