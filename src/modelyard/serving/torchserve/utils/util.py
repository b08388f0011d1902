"""Label files, list helpers and the exception that handlers raise."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")


class PredictionException(Exception):
    """Raised by a handler to choose the status of the answer."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


def load_label_mapping(
    mapping_file_path: str | os.PathLike[str] | None, is_object_detection: bool = False
) -> dict[str, Any] | None:
    """The mapping in `index_to_name.json`, class index (as text) to name; None where there is no such file."""
    if mapping_file_path is None or not Path(mapping_file_path).is_file():
        return None
    mapping: Any = json.loads(Path(mapping_file_path).read_text(encoding="utf-8"))
    if not isinstance(mapping, dict):
        raise TypeError("index_to_name.json must hold an object")
    entries = cast("dict[str, Any]", mapping)
    if is_object_detection and "object_type_names" in entries:
        return {str(index): name for index, name in enumerate(cast("list[Any]", entries["object_type_names"]))}
    return entries


def map_class_to_label(
    probs: list[list[float]], mapping: dict[str, Any] | None = None, lbl_classes: list[list[int]] | None = None
) -> list[dict[str, float]]:
    """For each row an object, label to probability. A mapping's values are names, or lists that end with the name."""
    classes: Any = lbl_classes or [list(range(len(row))) for row in probs]
    return [
        {_label(mapping, index): probability for index, probability in zip(indices, row, strict=True)}
        for indices, row in zip(classes, probs, strict=True)
    ]


def list_classes_from_module(module: Any, parent_class: type | None = None) -> list[type]:
    """The classes that a module defines itself; with `parent_class`, those below it."""
    values: list[Any] = list(module.__dict__.values())
    classes = [value for value in values if isinstance(value, type) and value.__module__ == module.__name__]
    return [found for found in classes if parent_class is None or issubclass(found, parent_class)]


def _label(mapping: dict[str, Any] | None, index: int) -> str:
    if mapping is None:
        return str(index)
    value = mapping.get(str(index), str(index))
    return str(cast("list[Any]", value)[-1]) if isinstance(value, list) else str(value)
