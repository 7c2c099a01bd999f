"""The data directory fills up during a deployment: requests succeed, the deployment waits.

The deployment ends once there is space again.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.service_fixture import Images, ServiceFixture
from tests.support.sluice_process import SluiceProcess

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.full, pytest.mark.anyio]


@pytest.fixture
async def service_on_small_disk(images: Images, tmp_path: Path) -> AsyncIterator[ServiceFixture]:
    """Run a Sluice whose data directory has 40 MB."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root")
    data = tmp_path / "data"
    data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m,mode=700", "none", str(data)]
    await asyncio.to_thread(subprocess.run, mount, check=True)
    try:
        with SluiceProcess(tmp_path, SLUICE_GATEWAY_IMAGE=images.gateway) as sluice:
            async with sluice.client() as http:
                yield ServiceFixture(sluice, http, images)
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "--lazy", str(data)], check=True)


async def test_full_disk_delays_a_deployment_and_no_request(service_on_small_disk: ServiceFixture) -> None:
    await service_on_small_disk.deploy(service_on_small_disk.spec())
    slow = {"HELLO_SLOW_START": "2"}
    async with service_on_small_disk.load() as load:
        running = await service_on_small_disk.begin(image=service_on_small_disk.images.two, environment=slow)
        await service_on_small_disk.reaches(running, lambda now: now["status"] == "progressing")
        filler = _fill(service_on_small_disk.sluice.data / "filler")
        load.mark("full")
        await load.until(lambda ledger: ledger.summary("full").requests >= 320, within=60)
        refused = await service_on_small_disk.http.post(
            "/deployments", json={"service": service_on_small_disk.service, "environment": {"A": "1"}}
        )
        assert refused.status_code in (202, 500, 503, 507), refused.text
        assert (await service_on_small_disk.get(f"/deployments/{running['id']}"))["service"] == service_on_small_disk.service
        filler.unlink()
        ended = await _end_of(service_on_small_disk, int(running["id"]))
        assert ended in ("succeeded", "rolled_back", "superseded"), await service_on_small_disk.scenario(running)
        if refused.status_code == 202:
            assert await _end_of(service_on_small_disk, int(refused.json()["id"])) == "succeeded"
        await service_on_small_disk.update(image=service_on_small_disk.images.one)
    assert len(await service_on_small_disk.starts()) == 2
    print(f"while it was full: POST {refused.status_code}; then {ended}")


def _fill(path: Path) -> Path:
    """Fill the file system to the last byte."""
    with path.open("wb", buffering=0) as filler:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    filler.write(b"\0" * size)
            except OSError:
                continue
    return path


async def _end_of(service_fixture: ServiceFixture, id: int) -> str:
    async def ended() -> str | None:
        now = await service_fixture.get(f"/deployments/{id}")
        return str(now["status"]) if now["finished_at"] else None

    return await service_fixture.until(ended, within=90)
