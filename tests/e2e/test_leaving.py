"""Instances that do not leave as they should, and connections that outstay their time."""

from __future__ import annotations

import asyncio
import time

import pytest
import websockets
from websockets.asyncio.client import connect

from tests.support.service_fixture import Json, Stage, unharmed

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def test_one_that_ignores_the_stop_signal_is_killed_after_its_grace_and_that_is_said(stage: Stage) -> None:
    await stage.deploy(stage.spec(environment={"HELLO_IGNORE_SIGTERM": "1"}, stop_grace_period=1))
    async with stage.load(slow_seconds=0.3):
        began = time.monotonic()
        updated = await stage.update(environment={"HELLO_IGNORE_SIGTERM": None})
        assert time.monotonic() - began < 15
    killed = [event for event in await stage.events(updated) if "stop_grace_period" in event["message"]]
    assert killed
    assert any("killed" in str(warning) for warning in updated["warnings"])
    assert len(await stage.containers()) == 2


async def test_one_that_exits_at_once_when_told_to_stop_has_nothing_left_to_lose(stage: Stage) -> None:
    await stage.deploy(stage.spec(environment={"HELLO_EXIT_ON_SIGTERM": "1"}))
    async with stage.load(slow=0.2):
        await stage.update(image=stage.images.two)
        await stage.change("restart")


async def test_a_request_longer_than_drain_timeout_is_cut_counted_and_named_and_no_other(stage: Stage) -> None:
    await stage.deploy(stage.spec(drain_timeout=1.5, replicas=1))
    (leaving,) = [instance["id"] for instance in (await stage.get("/instances", service=stage.service))["items"]]
    async with stage.by_hand(slow_seconds=20) as long, stage.load(slow_seconds=0.5):
        asked = asyncio.create_task(long.ask("SLOW"))
        for _ in range(5):
            assert (await long.ask("GET")).status == 200
        updated = await stage.update(image=stage.images.two)
        entry = await asked
    assert entry.lost
    assert entry.latency < 10
    cut = [str(warning) for warning in updated["warnings"] if leaving in str(warning)]
    assert any("1 still in flight" in warning for warning in cut), updated["warnings"]


async def test_a_websocket_passes_is_cut_at_drain_timeout_and_counted(stage: Stage) -> None:
    await stage.deploy(stage.spec(drain_timeout=1, replicas=1, stop_grace_period=2))
    url = f"{stage.sluice.gateway.replace('http', 'ws', 1)}/{stage.service}/ws"
    async with connect(url, open_timeout=5) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        async with stage.load(slow_seconds=0.3):
            updated = await stage.update(image=stage.images.two)
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)
    assert any("1 still in flight" in str(warning) for warning in updated["warnings"]), updated["warnings"]


async def test_an_event_stream_goes_on_until_its_instance_must_leave(stage: Stage) -> None:
    await stage.deploy(stage.spec(drain_timeout=1, replicas=1))
    async with stage.http.stream("GET", f"{stage.sluice.gateway}/{stage.service}/events", timeout=20) as stream:
        lines = stream.aiter_lines()
        assert (await anext(lines)).startswith("id: 1")
        async with stage.load(slow_seconds=0.3):
            updated = await stage.update(image=stage.images.two)
    assert updated["status"] == "succeeded"


async def test_an_instance_that_dies_is_replaced_and_no_read_is_lost(stage: Stage) -> None:
    await stage.deploy(stage.spec(replicas=3))
    async with stage.load(posts=0, slow_seconds=0.5) as load:
        victim, *_ = await stage.containers()
        await stage.docker("kill", victim["Id"])

        async def whole() -> bool:
            service: Json = await stage.of_service()
            running = await stage.starts()
            again = victim["Id"] not in running or running[victim["Id"]] != victim["State"]["StartedAt"]
            return bool(service["serving"] == 3 and len(running) == 3 and again)

        await stage.until(whole)
    unharmed(load)
