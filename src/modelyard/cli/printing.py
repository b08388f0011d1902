"""Data on stdout: tables for people, JSON and YAML for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, cast

import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from modelyard.cli.forms import Columns, Output

_WIDE = 10_000
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHOWN_ELSEWHERE = {"appKey", "defaultStage", "modelTypeCode"}


def show_many(resources: Sequence[BaseModel | Mapping[str, Any]], columns: Columns, output: Output) -> None:
    """Print a list."""
    rows = [_plain(resource) for resource in resources]
    if output is not Output.TABLE:
        show_json(rows, output)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading, _ in columns:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(_shown(_at(row, path)) for _, path in columns))
    _print(table)


def show_one(resource: BaseModel | Mapping[str, Any], output: Output) -> None:
    """Print one resource: its fields one below the other."""
    row = _plain(resource)
    if output is not Output.TABLE:
        show_json(row, output)
        return
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in sorted(row.items(), key=_rank):
        is_repeated = (
            name not in {"id", "name"} and name.endswith(("Id", "Name")) and value in {row.get("id"), row.get("name")}
        )
        is_elsewhere = name in _SHOWN_ELSEWHERE or (name == "frameworkCode" and row.get("modelFormatCode"))
        if not is_repeated and not is_elsewhere and value not in (None, [], ""):
            table.add_row(_label(name), _shown(value))
    _print(table)


def show_json(value: Any, output: Output) -> None:
    """Print a value as it is."""
    if output is Output.YAML:
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=_WIDE)
        sys.stdout.write(text.removesuffix("...\n"))
        return
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _rank(field: tuple[str, Any]) -> int:
    """Who it is and how it is come first; the rest stays in its order (sorting is stable)."""
    name = field[0]
    if name in {"id", "name"}:
        return 0
    return 1 if name.endswith(("StatusCode", "statusReason", "statusMessage")) else 2


def _plain(resource: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(resource, BaseModel):
        return resource.model_dump(mode="json", by_alias=True)
    return dict(resource)


def _at(row: Mapping[str, Any], paths: str) -> Any:
    found = (_follow(row, path.split(".")) for path in paths.split("|"))
    return next((value for value in found if value is not None), None)


def _follow(value: Any, parts: Sequence[str]) -> Any:
    if not parts:
        return value
    if isinstance(value, list):
        return [_follow(item, parts) for item in cast(list[Any], value)]
    return _follow(cast(dict[str, Any], value).get(parts[0]), parts[1:]) if isinstance(value, dict) else None


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        items = cast(list[Any], value)
        return (
            "\n".join(_shown(item).replace("\n", ", ") if isinstance(item, list) else _shown(item) for item in items)
            or "-"
        )
    if isinstance(value, dict):
        return _shown_object(cast(dict[str, Any], value))
    return str(value)


def _shown_object(item: dict[str, Any]) -> str:
    if "name" in item:
        state = next((str(value) for key, value in item.items() if key.endswith("StatusCode")), "")
        return f"{item['name']} ({state})" if state else str(item["name"])
    if len(item) == 2 and [*item][1].lower().endswith("value"):  # a tag, a parameter
        return " = ".join(_shown(value) for value in item.values())
    told = {key: value for key, value in item.items() if value not in (None, [], {})}
    return (
        "; ".join(f"{_label(key).lower()} {_shown(value).replace(chr(10), ', ')}" for key, value in told.items()) or "-"
    )


def _label(name: str) -> str:
    return _WORD.sub(" ", name).lower().replace("status code", "status").capitalize()


def _print(table: Table) -> None:
    # What is piped on is never cut, folded or padded; names are never read as markup.
    if sys.stdout.isatty():
        Console(file=sys.stdout, markup=False, highlight=False, emoji=False).print(table)
        return
    text = StringIO()
    Console(file=text, width=_WIDE, markup=False, highlight=False, emoji=False).print(table)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
