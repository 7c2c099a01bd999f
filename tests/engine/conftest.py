"""The real engine's tests run on one event loop each, in a yard of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.engine.docker.engine import DockerEngine
from tests.support.docker_fixture import IMAGE, RealYard, real_yard


@pytest.fixture
def yard() -> Iterator[RealYard]:
    with real_yard() as place:
        yield place


@pytest.fixture
def engine(yard: RealYard) -> Iterator[DockerEngine]:
    engine = DockerEngine(yard.name, yard.name, IMAGE)
    yield engine
    engine.close()
