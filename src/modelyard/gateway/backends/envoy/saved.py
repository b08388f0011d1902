"""Routes that were put, read back from the file where they are kept.

The file is the platform's memory while its database is not asked; what can't be read in it is left out and put again by the control loop.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from modelyard.gateway.port import (
    Access,
    ApiKey,
    Conditions,
    Cors,
    Mirror,
    Rate,
    Route,
    Rule,
    Target,
    Upstream,
)

_log = logging.getLogger(__name__)


def saved_routes(path: Path) -> Iterator[Route]:
    """The routes in the file; none when there is no file or it can't be read."""
    try:
        entries: list[dict[str, Any]] = list(orjson.loads(path.read_bytes())["routes"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as cause:
        _log.warning("the saved routes in %s can't be read (%s): starting without", path, cause)
        return
    for entry in entries:
        try:
            yield _route(entry)
        except (KeyError, TypeError, ValueError) as cause:
            _log.warning("a saved route in %s can't be read (%r): left out", path, cause)


def _route(entry: dict[str, Any]) -> Route:
    fields: dict[str, Any] = {
        **entry,
        "rules": tuple(_rule(rule) for rule in entry["rules"]),
        "upstreams": tuple(_upstream(upstream) for upstream in entry["upstreams"]),
        "labels": tuple((name, value) for name, value in entry["labels"]),
        "access": Access(**entry["access"]) if entry.get("access") else None,
        "conditions": _conditions(entry["conditions"]) if entry.get("conditions") else None,
    }
    return Route(**fields)


def _rule(entry: dict[str, Any]) -> Rule:
    fields: dict[str, Any] = {**entry, "upstreams": tuple(entry["upstreams"]), "methods": tuple(entry["methods"])}
    fields["mirrors"] = tuple(Mirror(**mirror) for mirror in entry.get("mirrors", ()))
    return Rule(**fields)


def _conditions(entry: dict[str, Any]) -> Conditions:
    keys, cors = entry["keys"], entry["cors"]
    fields: dict[str, Any] = {
        **entry,
        "keys": None if keys is None else tuple(ApiKey(key["id"], key["digest"], _rate(key["rate"])) for key in keys),
        "rate": _rate(entry["rate"]),
        "key_rate": _rate(entry["key_rate"]),
        "addresses": tuple(entry["addresses"]),
        "cors": None if cors is None else _cors(cors),
    }
    return Conditions(**fields)


def _rate(entry: dict[str, Any] | None) -> Rate | None:
    return None if entry is None else Rate(**entry)


def _cors(entry: dict[str, Any]) -> Cors:
    lists: dict[str, Any] = {name: tuple(value) for name, value in entry.items() if isinstance(value, list)}  # pyright: ignore[reportUnknownArgumentType]  # JSON
    return Cors(**{**entry, **lists})


def _upstream(entry: dict[str, Any]) -> Upstream:
    fields: dict[str, Any] = {**entry, "targets": tuple(Target(**target) for target in entry["targets"])}
    return Upstream(**fields)
