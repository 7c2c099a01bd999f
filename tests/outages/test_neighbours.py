"""Two Sluices on one engine: neither observes, counts or removes the other's objects."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.service_fixture import Images, ServiceFixture
from tests.support.sluice_process import SluiceProcess

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.full, pytest.mark.anyio]


async def test_sluices_on_one_engine_do_not_affect_each_other(
    isolated_service: ServiceFixture, images: Images, tmp_path: Path
) -> None:
    """One name is a prefix of the other, the services have the same name, and one service is removed."""
    with SluiceProcess(
        tmp_path / "other", name=f"{isolated_service.sluice.name}x", SLUICE_GATEWAY_IMAGE=images.gateway
    ) as second:
        async with second.client() as http:
            other = ServiceFixture(second, http, images)
            other.service = isolated_service.service
            await asyncio.gather(isolated_service.deploy(isolated_service.spec()), other.deploy(other.spec(images.two)))
            async with isolated_service.load() as load, other.load() as others:
                await asyncio.gather(isolated_service.change("restart"), other.change("scale", {"replicas": 3}))
                await asyncio.to_thread(second.kill)
                await isolated_service.change("scale", {"replicas": 1})
                await asyncio.to_thread(second.start)
                assert len(await isolated_service.containers()) == 1
                assert len(await other.containers()) == 3
                for service_fixture in (isolated_service, other):
                    assert (await service_fixture.get("/readyz"))["store_behind_engine"] == []
                    assert len((await service_fixture.get("/services"))["items"]) == 1
            assert load.request_log.entries
            assert others.request_log.entries
            before = await isolated_service.starts()
            await other.remove()
            assert await isolated_service.starts() == before
