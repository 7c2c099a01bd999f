"""Instances that do not stop as they should, and connections that outlast the drain."""

from __future__ import annotations

import asyncio
import re

import pytest
import websockets
from websockets.asyncio.client import connect

from tests.support.service_fixture import Json, ServiceFixture, unharmed

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def test_instance_that_ignores_sigterm_is_waited_for_by_name_and_killed(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(environment={"HELLO_IGNORE_SIGTERM": "1"}, stop_grace_period=4))
    async with service_fixture.load(slow_seconds=0.3):
        begun = await service_fixture.begin(environment={"HELLO_IGNORE_SIGTERM": None})
        waiting = await service_fixture.reaches(begun, lambda row: " to stop: " in row["message"])
        updated = await service_fixture.end_of(begun)
    assert re.search(
        rf"waiting for {service_fixture.service}-r1-\d .*to stop: SIGTERM \d s ago, killed at 4 s$", waiting["message"]
    )
    killed = [event["message"] for event in await service_fixture.events(updated) if event["type"] == "warning"]
    assert killed
    assert all("4 s (stop_grace_period): killed; " in message and "set init: true" in message for message in killed)
    assert {warning["code"] for warning in updated["warnings"]} == {"stop_grace_period"}
    assert len(await service_fixture.containers()) == 2


async def test_instance_that_exits_at_once_on_sigterm_loses_no_request(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(environment={"HELLO_EXIT_ON_SIGTERM": "1"}))
    async with service_fixture.load(slow=0.2):
        await service_fixture.update(image=service_fixture.images.two)
        await service_fixture.change("restart")


async def test_only_requests_longer_than_drain_timeout_are_force_closed_and_reported(
    service_fixture: ServiceFixture,
) -> None:
    await service_fixture.deploy(service_fixture.spec(drain_timeout=1.5, replicas=1))
    (leaving,) = [
        instance["id"] for instance in (await service_fixture.get("/instances", service=service_fixture.service))["items"]
    ]
    async with service_fixture.by_hand(slow_seconds=20) as long, service_fixture.load(slow_seconds=0.5):
        asked = asyncio.create_task(long.ask("SLOW"))
        for _ in range(5):
            assert (await long.ask("GET")).status == 200
        updated = await service_fixture.update(image=service_fixture.images.two)
        entry = await asked
    assert entry.lost
    assert entry.latency < 10
    cut = [str(warning) for warning in updated["warnings"] if leaving in str(warning)]
    assert any("1 still in flight" in warning for warning in cut), updated["warnings"]


async def test_websocket_is_force_closed_at_drain_timeout_and_reported(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(drain_timeout=1, replicas=1, stop_grace_period=2))
    url = f"{service_fixture.sluice.gateway.replace('http', 'ws', 1)}/{service_fixture.service}/ws"
    async with connect(url, open_timeout=5) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        async with service_fixture.load(slow_seconds=0.3):
            updated = await service_fixture.update(image=service_fixture.images.two)
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)
    assert any("1 still in flight" in str(warning) for warning in updated["warnings"]), updated["warnings"]


async def test_event_stream_does_not_block_a_rollout(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(drain_timeout=1, replicas=1))
    async with service_fixture.http.stream(
        "GET", f"{service_fixture.sluice.gateway}/{service_fixture.service}/events", timeout=20
    ) as stream:
        lines = stream.aiter_lines()
        assert (await anext(lines)).startswith("id: 1")
        async with service_fixture.load(slow_seconds=0.3):
            updated = await service_fixture.update(image=service_fixture.images.two)
    assert updated["status"] == "succeeded"


async def test_dead_instance_is_replaced_and_no_get_is_lost(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=3))
    async with service_fixture.load(posts=0, slow_seconds=0.5) as load:
        victim, *_ = await service_fixture.containers()
        await service_fixture.docker("kill", victim["Id"])

        async def whole() -> bool:
            service: Json = await service_fixture.of_service()
            running = await service_fixture.starts()
            again = victim["Id"] not in running or running[victim["Id"]] != victim["State"]["StartedAt"]
            return bool(service["serving"] == 3 and len(running) == 3 and again)

        await service_fixture.until(whole)
    unharmed(load)
