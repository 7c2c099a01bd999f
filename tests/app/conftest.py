"""A Sluice with fake engine and gateway for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.log_config import configure
from app.settings import Settings
from tests.support.app_fixture import AppFixture, build, living


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    """Configure the logs like the server does; an unconfigured structlog prints every variable of a traceback."""
    configure(Settings(log_level="warning"))


@pytest.fixture
def app_fixture(tmp_path: Path) -> Iterator[AppFixture]:
    with living(build(tmp_path / "data")) as made:
        yield made
