"""The contract between the platform and the store in which log lines are searched.

A line is written once: lines of one source carry a position that only grows, and `last_position` tells a shipper that starts again
where to go on, so that nothing is lost and nothing comes twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line with the fields of the guide's appendix.

    Attributes:
        source: who printed it, e.g. an instance's id; together with `position` it is the line's identity.
        position: grows with each line of the source (a byte offset, say).
        time: when it was printed, UTC.
        level: INFO, WARNING or ERROR.
        category: `easymaker.training`, `easymaker.inference`, `easymaker.sdk`.
        fields: the other fields by their names (`trainingId`, `endpointId`, `action` …).
    """

    source: str
    position: int
    time: datetime
    level: str
    category: str
    log_type: str
    app_key: str
    body: str
    fields: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What is searched. `text` is Lucene syntax as the guide shows; `cursor` continues an answer; newest first unless `is_ascending`."""

    app_key: str
    text: str = ""
    begin_at: datetime | None = None
    end_at: datetime | None = None
    limit: int = 100
    cursor: str | None = None
    is_ascending: bool = False


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines found. `lines` are wire-shaped mappings (`easymakerAppKey`, `category`, `logLevel`, `body`, `logType`, `time`, …)."""

    lines: Sequence[Mapping[str, Any]]
    total_count: int
    cursor: str | None


class BadQuery(Exception):
    """The query can't be read; the message says where and what was expected."""


class LogStore(Protocol):
    """A place to keep and search lines."""

    async def append(self, lines: Sequence[LogLine]) -> None:
        """Keep the lines durably. Returns once they would survive a crash."""
        ...

    async def search(self, query: LogQuery) -> LogPage:
        """Find lines of one app key. Raises `BadQuery`."""
        ...

    async def last_position(self, source: str) -> int | None:
        """The highest position kept of a source, or None."""
        ...

    async def remove_before(self, time: datetime) -> int:
        """Drop lines older than this; the number dropped."""
        ...
