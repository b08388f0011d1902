"""Use cases of log lines: search them, and take those that users' programs send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from modelyard.kit.errors import Fault, Invalid
from modelyard.kit.ids import new_id
from modelyard.logstore.port import BadQuery, LogLine, LogPage, LogQuery, LogStore
from modelyard.resources.projects.model import Caller

LOG_TYPE = "NHNCloud-AIEasyMaker"
_LEVELS = {
    "WARN": "WARNING",
    "FATAL": "ERROR",
    "CRITICAL": "ERROR",
}  # senders are free in their words; the product has three
_OWN_FIELDS = frozenset({"category", "logType", "body", "logLevel", "sendTime"})
MAX_BODY_CHARACTERS = 8_000_000
_END_OF_CALENDAR = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class Logs:
    """Lines of a project."""

    def __init__(self, store: LogStore) -> None:
        self._store = store

    async def search(
        self,
        caller: Caller,
        text: str,
        *,
        begin_at: datetime | None = None,
        end_at: datetime | None = None,
        limit: int = 100,
        cursor: str | None = None,
        is_ascending: bool = False,
    ) -> LogPage:
        """Lines that match a query in Lucene's syntax. Raises `Invalid`."""
        query = LogQuery(
            app_key=caller.project.app_key,
            text=text,
            begin_at=begin_at,
            end_at=end_at,
            limit=limit,
            cursor=cursor,
            is_ascending=is_ascending,
        )
        try:
            return await self._store.search(query)
        except BadQuery as bad:
            raise Invalid([Fault("query", str(bad))]) from None

    async def take(self, app_key: str, items: Sequence[Mapping[str, Any]]) -> None:
        """Keep lines that a program has sent (the official client's log sender, sdk-contract §10)."""
        source = f"sent:{new_id()}"
        lines = [_sent_line(app_key, source, position, item) for position, item in enumerate(items)]
        await self._store.append(lines)


def _moment(sent_at: Any) -> datetime | None:
    """A Unix time in seconds; None for what is none, such as milliseconds, which would be in tens of thousands of years."""
    if not isinstance(sent_at, int | float) or isinstance(sent_at, bool) or not 0 < sent_at < _END_OF_CALENDAR:
        return None
    return datetime.fromtimestamp(sent_at, tz=UTC)


def _sent_line(app_key: str, source: str, position: int, item: Mapping[str, Any]) -> LogLine:
    time = _moment(item.get("sendTime")) or datetime.now(UTC)
    level = str(item.get("logLevel") or "INFO").upper()
    level = _LEVELS.get(level, level)
    return LogLine(
        source=source,
        position=position,
        time=time,
        level=level if level in ("INFO", "WARNING", "ERROR") else "INFO",
        category=str(item.get("category") or "easymaker.sdk"),
        log_type=str(item.get("logType") or LOG_TYPE),
        app_key=app_key,
        body=str(item.get("body") or "")[:MAX_BODY_CHARACTERS],
        fields={key: str(value) for key, value in item.items() if key not in _OWN_FIELDS and value is not None},
    )
