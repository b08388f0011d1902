"""The API in the test's own process."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "eventfiles"))

from api_platform import ApiPlatform, api_platform


@pytest.fixture
async def api(database_url: str, tmp_path: Path) -> AsyncIterator[ApiPlatform]:
    """An empty platform; the test runs on SQLite and on PostgreSQL."""
    async with api_platform(database_url, tmp_path / "home") as platform:
        yield platform


@pytest.fixture
async def small_api(sqlite_database_url: str, tmp_path: Path) -> AsyncIterator[ApiPlatform]:
    """An empty platform on SQLite, for what the database has no part in."""
    async with api_platform(sqlite_database_url, tmp_path / "home") as platform:
        yield platform
