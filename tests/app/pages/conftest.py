"""A dashboard for each test, and a browser that is signed in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.dashboard_fixture import DashboardFixture

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[DashboardFixture]:
    fixture = DashboardFixture(tmp_path)
    yield fixture
    fixture.close()


@pytest.fixture
def stranger(fixture: DashboardFixture) -> Iterator[TestClient]:
    """Provide a browser without a session; it follows no redirect."""
    with TestClient(fixture.app, base_url="http://127.0.0.1:7080", follow_redirects=False, headers=SAME_SITE) as client:
        yield client


@pytest.fixture
def visitor(fixture: DashboardFixture, stranger: TestClient) -> TestClient:
    """Provide a browser in which the admin has signed in."""
    assert stranger.post("/ui/sign-in", data={"code": fixture.link()}).status_code == 303
    return stranger
