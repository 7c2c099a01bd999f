"""Fixtures of the end-to-end tests: one shared Sluice, and one per test that stops or kills it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.docker_cli import gateway, hello
from tests.support.service_fixture import Images, ServiceFixture
from tests.support.sluice_process import SluiceProcess


@pytest.fixture(scope="session")
def images() -> Images:
    return Images(hello("1"), hello("2"), gateway())


@pytest.fixture(scope="session")
def shared_sluice(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SluiceProcess]:
    with SluiceProcess(tmp_path_factory.mktemp("sluice"), SLUICE_GATEWAY_IMAGE=images.gateway) as sluice:
        yield sluice


@pytest.fixture
def own_sluice(images: Images, tmp_path: Path) -> Iterator[SluiceProcess]:
    with SluiceProcess(tmp_path, SLUICE_GATEWAY_IMAGE=images.gateway) as sluice:
        yield sluice


@pytest.fixture
async def service_fixture(shared_sluice: SluiceProcess, images: Images) -> AsyncIterator[ServiceFixture]:
    async with shared_sluice.client() as http:
        service_fixture = ServiceFixture(shared_sluice, http, images)
        yield service_fixture
        await http.delete(f"/services/{service_fixture.service}", params={"wait": 30})


@pytest.fixture
async def isolated_service(own_sluice: SluiceProcess, images: Images) -> AsyncIterator[ServiceFixture]:
    async with own_sluice.client() as http:
        yield ServiceFixture(own_sluice, http, images)
