"""The command line as a user calls it, against the SDK tests' small platform."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sdk"))

from small_platform import APP_KEY, TOKEN, SmallPlatform, running
from typer.testing import CliRunner, Result

from modelyard.cli.main import app

Run = Callable[..., Result]


@pytest.fixture
def platform() -> Iterator[SmallPlatform]:
    with running(SmallPlatform()) as platform:
        yield platform


@pytest.fixture
def run(platform: SmallPlatform, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process; stdout and stderr are apart, and neither is a terminal."""
    monkeypatch.setenv("MODELYARD_API_URL", platform.url)
    monkeypatch.setenv("MODELYARD_APP_KEY", APP_KEY)
    monkeypatch.setenv("MODELYARD_ACCESS_TOKEN", TOKEN)
    runner = CliRunner()

    def call(*words: str, input: str | None = None) -> Result:
        result = runner.invoke(app, list(words), input=input)
        assert "Traceback (most recent call last)" not in result.stderr.replace("  | Traceback", "")
        return result

    return call
