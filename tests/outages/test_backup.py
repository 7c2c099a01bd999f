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


async def test_restored_backup_removes_no_container_and_can_be_recovered_from(own: ServiceFixture, tmp_path: Path) -> None:
    """Follow docs/outages.md step by step."""
    first, late, scaled = own.service, f"{own.service}x", f"{own.service}y"
    await own.deploy(own.spec())
    await own.deploy(own.spec(service=scaled, replicas=1))
    backup = copy(own.sluice.data / "sluice.db", tmp_path / "yesterday.db")
    highest = await _one_more_day(own, late, scaled)
    strangers = await _instances(own)
    known = {f"{scaled}-r1-1"}
    assert strangers == {f"{first}-r2-1", f"{first}-r2-2", f"{late}-r1-1", f"{scaled}-r1-1", f"{scaled}-r1-2"}

    async with own.load(service=first, lossless=False) as load, own.load(service=scaled) as other:
        await asyncio.to_thread(own.sluice.stop)
        _put_back(own, backup)
        await asyncio.to_thread(own.sluice.start)
        ready = await own.get("/readyz")
        assert set(ready["store_behind_engine"]) == strangers - known
        assert await _instances(own) >= strangers
        await own.until(lambda: _serves(own, first, 2))
        load.mark("on the old version")
        await load.until(lambda request_log: request_log.summary("on the old version").requests >= 20)
    unharmed(load)
    unharmed(other)
    assert {instance.rpartition("-")[0] for instance in load.request_log.versions("on the old version")} == {f"{first}-r1"}

    again = await own.update(image=own.images.two)
    assert again["id"] > highest
    made = await own.deploy(own.spec(service=late, replicas=1))
    assert made["id"] > highest
    fresh = await _instances(own) - strangers
    assert all(int(instance.split("-r")[1].split("-")[0]) > 1 for instance in fresh), fresh
    async with own.load(service=first), own.load(service=late), own.load(service=scaled):
        gone = [f"{own.sluice.name}-{instance}" for instance in strangers - known]
        await own.docker("rm", "--force", *gone)
        await own.change("scale", {"replicas": 3})
    await own.until(lambda: _nobody_unknown(own))


async def test_address_of_a_container_unknown_to_the_store_is_not_allocated(own: ServiceFixture, tmp_path: Path) -> None:
    """A second use could send a request to another service's container."""
    await own.deploy(own.spec(replicas=1))
    backup = copy(own.sluice.data / "sluice.db", tmp_path / "yesterday.db")
    late = f"{own.service}x"
    await own.deploy(own.spec(service=late, replicas=3))
    await asyncio.to_thread(own.sluice.kill)
    _put_back(own, backup)
    await asyncio.to_thread(own.sluice.start)
    async with own.load() as load:
        await own.change("scale", {"replicas": 4})
        await own.change("restart")
    assert {instance.rsplit("-r", 1)[0] for instance in load.request_log.versions()} == {own.service}
    failed = [row for row in (await own.get("/instances", service=own.service))["items"] if row["status"] == "failed"]
    assert failed == []
    assert len(await own.containers(late)) == 3


async def _one_more_day(own: ServiceFixture, late: str, scaled: str) -> int:
    """Make changes that the backup does not contain; return the last deployment's id."""
    await own.update(image=own.images.two)
    await own.deploy(own.spec(service=late, replicas=1))
    answer = await own.http.post(f"/services/{scaled}/scale", params={"wait": 60}, json={"replicas": 2})
    return int((await own.ended(answer, "succeeded"))["id"])


def _put_back(own: ServiceFixture, backup: Path) -> None:
    database = own.sluice.data / "sluice.db"
    for file in (database, database.with_name("sluice.db-wal"), database.with_name("sluice.db-shm")):
        file.unlink(missing_ok=True)
    shutil.copy(backup, database)


async def _instances(own: ServiceFixture) -> set[str]:
    words = ["--filter", f"label=sluice.name={own.sluice.name}", "--filter", "label=sluice.service"]
    names = (await own.docker("ps", *words, "--format", "{{.Names}}")).split()
    return {name.removeprefix(f"{own.sluice.name}-") for name in names}


async def _serves(own: ServiceFixture, service: str, count: int) -> bool:
    return bool((await own.get(f"/services/{service}"))["serving"] == count)


async def _nobody_unknown(own: ServiceFixture) -> bool:
    return not (await own.get("/readyz"))["store_behind_engine"]
