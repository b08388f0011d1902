"""A real Chromium, driven by Playwright, on whole platforms."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_FLAGS = (
    "--no-sandbox",  # tests may run as root, as which Chromium's own sandbox does not start
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Without these, Chromium calls its maker at every start; on a closed network that is a storm of refused connections.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The browser. A test opens contexts of its own: `chromium.new_context(ignore_https_errors=True)`.

    Started once a module, not once a session: while Playwright runs, its event loop is in the way of asynchronous tests.
    """
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    assert program, "There is no Chromium: run tools/chromium.sh"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page with cookies and storage of its own."""
    with chromium.new_context(viewport={"width": 1280, "height": 800}, ignore_https_errors=True) as context:
        yield context.new_page()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: `$MODELYARD_SCREENSHOTS`, or a temporary directory."""
    wanted = os.environ.get("MODELYARD_SCREENSHOTS")
    place = Path(wanted) if wanted else tmp_path_factory.mktemp("screenshots")
    place.mkdir(parents=True, exist_ok=True)
    return place
