"""A house for each test, and a browser that is signed in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.dashboard_fixture import House

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture
def stranger(house: House) -> Iterator[TestClient]:
    """A browser that nobody has signed in with; it follows no redirect."""
    with TestClient(house.app, base_url="http://127.0.0.1:7080", follow_redirects=False, headers=SAME_SITE) as client:
        yield client


@pytest.fixture
def visitor(house: House, stranger: TestClient) -> TestClient:
    """A browser in which the admin has signed in."""
    assert stranger.post("/ui/sign-in", data={"code": house.link()}).status_code == 303
    return stranger
