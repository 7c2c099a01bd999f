"""Two Sluices on one engine: neither observes, counts or removes the other's objects."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.service_fixture import Images, ServiceFixture
from tests.support.sluice_process import SluiceProcess

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.full, pytest.mark.anyio]


async def test_sluices_on_one_engine_do_not_affect_each_other(own: ServiceFixture, images: Images, tmp_path: Path) -> None:
    """One name is a prefix of the other, the services have the same name, and one service is removed."""
    with SluiceProcess(tmp_path / "other", name=f"{own.sluice.name}x", SLUICE_GATEWAY_IMAGE=images.gateway) as second:
        async with second.client() as http:
            other = ServiceFixture(second, http, images)
            other.service = own.service
            await asyncio.gather(own.deploy(own.spec()), other.deploy(other.spec(images.two)))
            async with own.load() as load, other.load() as others:
                await asyncio.gather(own.change("restart"), other.change("scale", {"replicas": 3}))
                await asyncio.to_thread(second.kill)
                await own.change("scale", {"replicas": 1})
                await asyncio.to_thread(second.start)
                assert len(await own.containers()) == 1
                assert len(await other.containers()) == 3
                for fixture in (own, other):
                    assert (await fixture.get("/readyz"))["store_behind_engine"] == []
                    assert len((await fixture.get("/services"))["items"]) == 1
            assert load.request_log.entries
            assert others.request_log.entries
            before = await own.starts()
            await other.remove()
            assert await own.starts() == before
