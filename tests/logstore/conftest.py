"""What the log store's tests share: lines, and stores that commit at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modelyard.logstore.backends.tantivy.store import LogStoreSettings, TantivyLogs
from modelyard.logstore.port import LogLine

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
MakeLine = Callable[..., LogLine]


@pytest.fixture
def make_line() -> MakeLine:
    def make(position: int, body: str = "hello", **changes: object) -> LogLine:
        values: dict[str, object] = {
            "source": "instance-1",
            "position": position,
            "time": BEGIN + timedelta(seconds=position % 86_400),
            "level": "INFO",
            "category": "easymaker.training",
            "log_type": "NHNCloud-AIEasyMaker",
            "app_key": "key-1",
            "body": body,
        }
        return LogLine(**(values | changes))  # pyright: ignore[reportArgumentType]  the values are named after the fields

    return make


@pytest.fixture
def settings() -> LogStoreSettings:
    return LogStoreSettings(gather_seconds=0.005)


@pytest.fixture
async def logs(tmp_path: Path, settings: LogStoreSettings) -> AsyncIterator[TantivyLogs]:
    async with TantivyLogs(tmp_path / "logs", settings) as store:
        yield store
