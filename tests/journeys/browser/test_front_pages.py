"""The pages that need no sign-in: `/` and the REST reference, as a browser without internet shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from journey_platform import RunningPlatform
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.slow


def test_the_front_page_leads_to_the_rest_reference(page: Page, platform: RunningPlatform, screenshots: Path) -> None:
    url = f"http://127.0.0.1:{platform.http_port}"
    trouble: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url + "/")
    expect(page.get_by_role("heading", name="Modelyard")).to_be_visible()
    page.screenshot(path=screenshots / "front.png")
    page.get_by_role("link", name="REST API").first.click()
    expect(page.get_by_text("/v1.0/appkeys/{appkey}/trainings", exact=True).first).to_be_visible()
    page.screenshot(path=screenshots / "docs.png")
    assert trouble == []
    foreign = [url for url in asked if not url.startswith((url, "data:"))]
    assert foreign == []
