"""One machine for the outages of the engine and the host; each test has a Sluice of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import images, own_sluice, shared_sluice
from tests.support.machine import Machine, MachineSluiceProcess
from tests.support.service_fixture import Images, ServiceFixture
from tests.support.sluice_process import SluiceProcess

__all__ = ["images", "own_sluice", "shared_sluice"]


@pytest.fixture(scope="session")
def machine(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if os.geteuid() != 0 or shutil.which("dockerd") is None or shutil.which("unshare") is None:
        pytest.skip("a machine of one's own needs root, dockerd and unshare")
    with Machine(tmp_path_factory.mktemp("machine"), os.getpid() % 64) as machine:
        machine.take(images.one, images.two, images.gateway)
        yield machine


@pytest.fixture
def machine_sluice(
    machine: Machine, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MachineSluiceProcess]:
    monkeypatch.setenv("DOCKER_HOST", machine.engine)
    with MachineSluiceProcess(machine, tmp_path, SLUICE_GATEWAY_IMAGE=images.gateway) as sluice:
        yield sluice
        sluice.clear()


@pytest.fixture
async def machine_service(machine_sluice: MachineSluiceProcess, images: Images) -> AsyncIterator[ServiceFixture]:
    """Return a service of the Sluice on that machine."""
    async with machine_sluice.client() as http:
        yield ServiceFixture(machine_sluice, http, images)


@pytest.fixture
async def isolated_service(own_sluice: SluiceProcess, images: Images) -> AsyncIterator[ServiceFixture]:
    async with own_sluice.client() as http:
        yield ServiceFixture(own_sluice, http, images)
