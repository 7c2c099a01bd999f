"""Everyday changes under load: no request is lost and none runs twice."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.support.service_fixture import ServiceFixture, versions

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def test_service_is_updated_scaled_restarted_and_rolled_back_under_load(service_fixture: ServiceFixture) -> None:
    first = await service_fixture.deploy(service_fixture.spec(replicas=3))
    assert first["progress"]["serving"] == 3
    async with service_fixture.load() as load:
        load.mark("update")
        updated = await service_fixture.update(image=service_fixture.images.two)
        load.mark("on two")
        await load.until(lambda request_log: request_log.summary("on two").requests >= 10)
        load.mark("scale out")
        await service_fixture.change("scale", {"replicas": 5})
        load.mark("scale in")
        await service_fixture.change("scale", {"replicas": 2})
        load.mark("restart")
        before = await service_fixture.starts()
        await service_fixture.change("restart")
        assert not before.keys() & (await service_fixture.starts()).keys()
        load.mark("rollback")
        rolled = await service_fixture.change("rollback")
        load.mark("on one again")
        await load.until(lambda request_log: request_log.summary("on one again").requests >= 10)
    assert (updated["revision"], updated["from_revision"], rolled["revision"]) == (2, 1, 1)
    assert versions(load, "on two") == {"r2"}
    assert versions(load, "on one again") == {"r1"}
    service = await service_fixture.of_service()
    assert (service["status"], service["revision"], service["replicas"], service["serving"]) == ("serving", 1, 2, 2)
    kinds = [row["kind"] for row in (await service_fixture.get("/deployments", service=service_fixture.service))["items"]]
    assert kinds == ["rollback", "restart", "scale", "scale", "deploy", "deploy"]


async def test_service_scaled_to_zero_refuses_requests_at_once_until_it_is_scaled_up(
    service_fixture: ServiceFixture,
) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=1, queue_timeout=50))
    url = f"{service_fixture.sluice.gateway}/{service_fixture.service}"
    async with httpx.AsyncClient(timeout=20) as client:
        async with service_fixture.by_hand() as load:
            slow = asyncio.create_task(load.ask("SLOW"))
            await service_fixture.change("scale", {"replicas": 0})
        assert (await slow).status == 200
        assert await service_fixture.starts() == {}
        assert (await service_fixture.of_service())["status"] == "stopped"
        assert (await client.get(url)).status_code == 503
        scale = await service_fixture.http.post(f"/services/{service_fixture.service}/scale", json={"replicas": 1})

        async def answer() -> int | None:
            """Return the status of the first request that is not refused at once."""
            status = (await client.get(url)).status_code
            return None if status == 503 else status

        assert await service_fixture.until(answer) == 200
        await service_fixture.end_of(scale.json())


async def test_removed_service_finishes_requests_in_flight_and_keeps_its_history(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    async with service_fixture.by_hand(slow_seconds=1.5) as load:
        slow = [asyncio.create_task(load.ask("SLOW")) for _ in range(6)]
        for _ in range(5):
            assert (await load.ask("GET")).status == 200  # The answers show that the slow requests were sent.
        await service_fixture.remove()
        entries = await asyncio.gather(*slow)
        assert [entry.status for entry in entries] == [200] * 6, load.request_log.explain()
        assert (await load.ask("GET")).status == 404
    assert await service_fixture.containers() == []
    assert (await service_fixture.of_service())["status"] == "removed"
    kinds = [row["kind"] for row in (await service_fixture.get("/deployments", service=service_fixture.service))["items"]]
    assert kinds == ["remove", "deploy"]


async def test_unchanged_spec_starts_no_instance(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    before = await service_fixture.starts()
    again = await service_fixture.update(image=service_fixture.images.one)
    assert again["reason"] == "unchanged"
    assert await service_fixture.starts() == before


async def test_change_of_routes_or_timeouts_replaces_no_instance(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    before = await service_fixture.starts()
    async with service_fixture.load():
        routes = [
            {"path_prefix": f"/{service_fixture.service}", "strip_prefix": True},
            {"host": f"{service_fixture.service}.example"},
        ]
        moved = await service_fixture.update(routes=routes, drain_timeout=7, request_timeout=20)
    assert await service_fixture.starts() == before
    assert {instance["revision"] for instance in moved["instances"]} <= {2}
    async with httpx.AsyncClient() as http:
        answer = await http.get(service_fixture.sluice.gateway, headers={"Host": f"{service_fixture.service}.example"})
    assert answer.status_code == 200


async def test_rollout_stays_within_max_surge_and_max_unavailable(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=3, max_surge=1, max_unavailable=0))
    async with service_fixture.load(slow_seconds=0.3), service_fixture.watched() as watch:
        await service_fixture.update(image=service_fixture.images.two)
    assert (watch.least, watch.most) == (3, 4)


async def test_rollout_without_surge_removes_an_instance_before_it_starts_another(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=3, max_surge=0, max_unavailable=1))
    async with service_fixture.load(slow_seconds=0.3), service_fixture.watched() as watch:
        await service_fixture.update(image=service_fixture.images.two)
    assert (watch.least, watch.most) == (2, 3)


async def test_recreate_stops_old_instances_before_new_ones_start_and_requests_wait(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(strategy="recreate"))
    async with service_fixture.load(slow_seconds=0.3, rate=40), service_fixture.watched() as watch:
        await service_fixture.update(image=service_fixture.images.two)
    assert (watch.least, watch.most) == (0, 2)
