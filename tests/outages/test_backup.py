"""Yesterday's backup is restored: unknown containers are reported and kept.

Their ids are never used again.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from services.store.backup import copy
from tests.support.service_fixture import ServiceFixture, unharmed

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.full, pytest.mark.anyio]


async def test_restored_backup_removes_no_container_and_can_be_recovered_from(
    isolated_service: ServiceFixture, tmp_path: Path
) -> None:
    """Follow docs/outages.md step by step."""
    first, late, scaled = isolated_service.service, f"{isolated_service.service}x", f"{isolated_service.service}y"
    await isolated_service.deploy(isolated_service.spec())
    await isolated_service.deploy(isolated_service.spec(service=scaled, replicas=1))
    backup = copy(isolated_service.sluice.data / "sluice.db", tmp_path / "yesterday.db")
    highest = await _one_more_day(isolated_service, late, scaled)
    strangers = await _instances(isolated_service)
    known = {f"{scaled}-r1-1"}
    assert strangers == {f"{first}-r2-1", f"{first}-r2-2", f"{late}-r1-1", f"{scaled}-r1-1", f"{scaled}-r1-2"}

    async with isolated_service.load(service=first, lossless=False) as load, isolated_service.load(service=scaled) as other:
        await asyncio.to_thread(isolated_service.sluice.stop)
        _put_back(isolated_service, backup)
        await asyncio.to_thread(isolated_service.sluice.start)
        ready = await isolated_service.get("/readyz")
        assert set(ready["store_behind_engine"]) == strangers - known
        assert await _instances(isolated_service) >= strangers
        await isolated_service.until(lambda: _serves(isolated_service, first, 2))
        load.mark("on the old version")
        await load.until(lambda request_log: request_log.summary("on the old version").requests >= 20)
    unharmed(load)
    unharmed(other)
    assert {instance.rpartition("-")[0] for instance in load.request_log.versions("on the old version")} == {f"{first}-r1"}

    again = await isolated_service.update(image=isolated_service.images.two)
    assert again["id"] > highest
    made = await isolated_service.deploy(isolated_service.spec(service=late, replicas=1))
    assert made["id"] > highest
    fresh = await _instances(isolated_service) - strangers
    assert all(int(instance.split("-r")[1].split("-")[0]) > 1 for instance in fresh), fresh
    async with (
        isolated_service.load(service=first),
        isolated_service.load(service=late),
        isolated_service.load(service=scaled),
    ):
        gone = [f"{isolated_service.sluice.name}-{instance}" for instance in strangers - known]
        await isolated_service.docker("rm", "--force", *gone)
        await isolated_service.change("scale", {"replicas": 3})
    await isolated_service.until(lambda: _nobody_unknown(isolated_service))


async def test_address_of_a_container_unknown_to_the_store_is_not_allocated(
    isolated_service: ServiceFixture, tmp_path: Path
) -> None:
    """A second use could send a request to another service's container."""
    await isolated_service.deploy(isolated_service.spec(replicas=1))
    backup = copy(isolated_service.sluice.data / "sluice.db", tmp_path / "yesterday.db")
    late = f"{isolated_service.service}x"
    await isolated_service.deploy(isolated_service.spec(service=late, replicas=3))
    await asyncio.to_thread(isolated_service.sluice.kill)
    _put_back(isolated_service, backup)
    await asyncio.to_thread(isolated_service.sluice.start)
    async with isolated_service.load() as load:
        await isolated_service.change("scale", {"replicas": 4})
        await isolated_service.change("restart")
    assert {instance.rsplit("-r", 1)[0] for instance in load.request_log.versions()} == {isolated_service.service}
    failed = [
        row
        for row in (await isolated_service.get("/instances", service=isolated_service.service))["items"]
        if row["status"] == "failed"
    ]
    assert failed == []
    assert len(await isolated_service.containers(late)) == 3


async def _one_more_day(isolated_service: ServiceFixture, late: str, scaled: str) -> int:
    """Make changes that the backup does not contain; return the last deployment's id."""
    await isolated_service.update(image=isolated_service.images.two)
    await isolated_service.deploy(isolated_service.spec(service=late, replicas=1))
    answer = await isolated_service.http.post(f"/services/{scaled}/scale", params={"wait": 60}, json={"replicas": 2})
    return int((await isolated_service.ended(answer, "succeeded"))["id"])


def _put_back(isolated_service: ServiceFixture, backup: Path) -> None:
    database = isolated_service.sluice.data / "sluice.db"
    for file in (database, database.with_name("sluice.db-wal"), database.with_name("sluice.db-shm")):
        file.unlink(missing_ok=True)
    shutil.copy(backup, database)


async def _instances(isolated_service: ServiceFixture) -> set[str]:
    words = ["--filter", f"label=sluice.name={isolated_service.sluice.name}", "--filter", "label=sluice.service"]
    names = (await isolated_service.docker("ps", *words, "--format", "{{.Names}}")).split()
    return {name.removeprefix(f"{isolated_service.sluice.name}-") for name in names}


async def _serves(isolated_service: ServiceFixture, service: str, count: int) -> bool:
    return bool((await isolated_service.get(f"/services/{service}"))["serving"] == count)


async def _nobody_unknown(isolated_service: ServiceFixture) -> bool:
    return not (await isolated_service.get("/readyz"))["store_behind_engine"]
