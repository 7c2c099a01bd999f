"""A dashboard for each test, and a browser that is signed in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.dashboard_fixture import DashboardFixture

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def dashboard_fixture(tmp_path: Path) -> Iterator[DashboardFixture]:
    dashboard_fixture = DashboardFixture(tmp_path)
    yield dashboard_fixture
    dashboard_fixture.close()


@pytest.fixture
def anonymous_browser(dashboard_fixture: DashboardFixture) -> Iterator[TestClient]:
    """Provide a browser without a session; it follows no redirect."""
    with TestClient(
        dashboard_fixture.app, base_url="http://127.0.0.1:7080", follow_redirects=False, headers=SAME_SITE
    ) as client:
        yield client


@pytest.fixture
def admin_browser(dashboard_fixture: DashboardFixture, anonymous_browser: TestClient) -> TestClient:
    """Provide a browser in which the admin has signed in."""
    assert anonymous_browser.post("/ui/sign-in", data={"code": dashboard_fixture.link()}).status_code == 303
    return anonymous_browser
