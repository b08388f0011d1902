"""What programs tell errors apart by."""

from __future__ import annotations

import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module

import modelyard.resources
from modelyard.kit.errors import UserError


def kinds(kind: type[UserError] = UserError) -> Iterator[type[UserError]]:
    for each in kind.__subclasses__():
        yield each
        yield from kinds(each)


def test_each_kind_of_error_has_a_code_of_its_own() -> None:
    for found in pkgutil.walk_packages(modelyard.resources.__path__, "modelyard.resources."):
        if found.name.endswith(".errors"):
            import_module(found.name)
    names: defaultdict[int, list[str]] = defaultdict(list)
    for kind in set(kinds()):
        if "code" in vars(kind) and kind.__module__.startswith("modelyard.resources"):
            names[kind.code].append(kind.__qualname__)
    assert len(names) > 50
    assert {code: each for code, each in names.items() if len(each) > 1} == {}
    for kind in set(kinds()):
        assert kind.code // 1000 == kind.status, kind
