"""Fixtures of the engine's tests: one event loop per test, a network of its own on real Docker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.engine.docker.engine import DockerEngine
from tests.support.docker_fixture import IMAGE, DockerFixture, open_docker_fixture


@pytest.fixture
def docker_fixture() -> Iterator[DockerFixture]:
    with open_docker_fixture() as place:
        yield place


@pytest.fixture
def engine(docker_fixture: DockerFixture) -> Iterator[DockerEngine]:
    engine = DockerEngine(docker_fixture.name, docker_fixture.name, IMAGE)
    yield engine
    engine.close()
