"""One real Sluice for the stories that only use it; those that stop and kill it have their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.docker_cli import gateway, hello
from tests.support.service_fixture import Images, Stage
from tests.support.sluice_process import Sluice


@pytest.fixture(scope="session")
def images() -> Images:
    return Images(hello("1"), hello("2"), gateway())


@pytest.fixture(scope="session")
def shared_sluice(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sluice]:
    with Sluice(tmp_path_factory.mktemp("sluice"), SLUICE_GATEWAY_IMAGE=images.gateway) as sluice:
        yield sluice


@pytest.fixture
def own_sluice(images: Images, tmp_path: Path) -> Iterator[Sluice]:
    with Sluice(tmp_path, SLUICE_GATEWAY_IMAGE=images.gateway) as sluice:
        yield sluice


@pytest.fixture
async def stage(shared_sluice: Sluice, images: Images) -> AsyncIterator[Stage]:
    async with shared_sluice.client() as http:
        stage = Stage(shared_sluice, http, images)
        yield stage
        await http.delete(f"/services/{stage.service}", params={"wait": 30})


@pytest.fixture
async def own(own_sluice: Sluice, images: Images) -> AsyncIterator[Stage]:
    async with own_sluice.client() as http:
        yield Stage(own_sluice, http, images)
