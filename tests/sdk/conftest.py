"""The small platform, and clients for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_platform import APP_KEY, QUICK, TOKEN, SmallPlatform, running

from modelyard.sdk.client import Client
from modelyard.sdk.connection import Connection


@pytest.fixture
def platform() -> Iterator[SmallPlatform]:
    with running(SmallPlatform()) as platform:
        yield platform


@pytest.fixture
def connection(platform: SmallPlatform) -> Connection:
    return Connection(platform.url, APP_KEY, TOKEN)


@pytest.fixture
def client(connection: Connection) -> Iterator[Client]:
    with Client(connection, patience=QUICK) as client:
        yield client
