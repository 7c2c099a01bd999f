"""The API reference uses only files that Sluice serves, under the content security policy of all its pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.app.test_server import serving
from tests.support.app_fixture import build

pytestmark = pytest.mark.browser


def test_api_reference_loads_nothing_from_other_sites(tmp_path: Path, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with serving(build(tmp_path)) as served:
        page.set_extra_http_headers({"Authorization": f"Bearer {served.fixture.token}"})
        page.goto(f"{served.url}/docs")
        deploy = page.locator(".opblock-post").filter(has_text="/deployments").first
        deploy.locator(".opblock-summary-control").click()
        expect(deploy.get_by_text("Example Value").first).to_be_visible()
    assert [url for url in asked if not url.startswith((served.url, "data:"))] == []
