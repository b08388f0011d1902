"""Lines that say more than their text: records of a model server's inferences. Pure.

Such a line begins with the record separator (0x1E, RFC 7464) and goes on with a JSON object. Users' programs may print one too, so only
the fields named here are taken from it, and the platform's own fields win over them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

RECORD_SEPARATOR = "\x1e"
_FIELDS = ("inferenceId", "action", "status", "milliseconds")
_LEVELS = ("INFO", "WARNING", "ERROR")
_FIELD_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class Record:
    """A line of a record: its text, its level, and fields that searches can name."""

    body: str
    level: str
    fields: Mapping[str, str]


def read_record(line: str) -> Record | None:
    """The record in a line; None for lines that are just text."""
    if not line.startswith(RECORD_SEPARATOR):
        return None
    try:
        value: Any = json.loads(line[1:])
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    content = cast("dict[str, Any]", value)
    body, level = content.get("body"), content.get("level")
    if not isinstance(body, str):
        return None
    given = {name: content[name] for name in _FIELDS if isinstance(content.get(name), str | int | float)}
    fields = {name: str(item)[:_FIELD_CHARACTERS] for name, item in given.items()}
    return Record(body, level if level in _LEVELS else "INFO", fields)
