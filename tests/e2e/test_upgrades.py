"""The gateway is upgraded under load, with Sluice killed at each step: nothing is lost or cut off."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import docker
import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.docker_cli import EngineFault
from tests.support.docker_fixture import build
from tests.support.engine_proxy import EngineProxy
from tests.support.service_fixture import Images, Json, ServiceFixture, unharmed
from tests.support.sluice_process import SluiceProcess

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def upgrade(service_fixture: ServiceFixture, **body: bool) -> Json:
    answer = await service_fixture.http.post("/gateway/upgrade", json=body)
    assert answer.status_code == 200, f"{answer.text}\n{service_fixture.sluice.last_words(20)}"
    return dict(answer.json())


async def restart(sluice: SluiceProcess) -> None:
    """Restart Sluice in a thread: the event loop carries the load generator's clock."""
    await asyncio.to_thread(sluice.stop)
    await asyncio.to_thread(sluice.start)


async def gateways(service_fixture: ServiceFixture) -> dict[str, str]:
    """Return restart policy and state of each of the gateway's containers, by name."""
    reported = await service_fixture.docker(
        "ps",
        "--all",
        "--filter",
        f"label=sluice.name={service_fixture.sluice.name}",
        "--filter",
        "label=sluice.role=gateway",
        "--quiet",
    )
    found = []
    for id in reported.split():
        with suppress(EngineFault):  # The container was removed in between.
            found += json.loads(await service_fixture.docker("inspect", id))
    return {
        each["Name"].removeprefix("/"): f"{each['HostConfig']['RestartPolicy']['Name']} {each['State']['Status']}"
        for each in found
    }


async def alone(service_fixture: ServiceFixture) -> bool:
    return await gateways(service_fixture) == {f"{service_fixture.sluice.name}-gateway": "always running"}


async def test_gateway_upgrade_during_a_deployment_keeps_long_requests_and_websockets(
    isolated_service: ServiceFixture,
) -> None:
    talker = ServiceFixture(isolated_service.sluice, isolated_service.http, isolated_service.images)
    await isolated_service.deploy(isolated_service.spec(replicas=3))
    await talker.deploy(talker.spec(replicas=1))
    url = f"{isolated_service.sluice.gateway.replace('http', 'ws', 1)}/{talker.service}/ws"
    async with (
        connect(url, open_timeout=5) as socket,
        talker.by_hand(slow_seconds=12) as long,
        isolated_service.load(rate=100) as load,
    ):
        asked = asyncio.create_task(long.ask("SLOW"))
        await asyncio.sleep(0.5)
        load.mark("upgraded")
        deployment = await isolated_service.begin(image=isolated_service.images.two)
        made = await upgrade(isolated_service, force=True)
        await isolated_service.end_of(deployment)
        again = await isolated_service.change("restart")
        assert again["status"] == "succeeded"
        for _ in range(3):
            await socket.send("still there?")
            assert await socket.recv() == "still there?"
        elder = f"{isolated_service.sluice.name}-gateway-{made['previous_id'][:12]}"
        assert await gateways(isolated_service) == {
            f"{isolated_service.sluice.name}-gateway": "always running",
            elder: "no running",
        }
        entry = await asked
        assert not entry.lost and entry.added < 2
        state = await isolated_service.get("/gateway")
        assert [worker["upgraded"] for worker in state["old_workers"]] == [True], "the websocket keeps it"
        await socket.send("and now?")
        assert await socket.recv() == "and now?"
        load.mark("left")
    await isolated_service.until(lambda: alone(isolated_service))
    print(json.dumps([made["seconds"], *(phase.as_dict() for phase in load.request_log.summaries())]))


@pytest.mark.full
async def test_instance_is_not_stopped_while_the_old_gateway_has_its_request_in_flight(
    isolated_service: ServiceFixture,
) -> None:
    await isolated_service.deploy(isolated_service.spec(replicas=1))
    async with isolated_service.by_hand(slow_seconds=6) as long:
        asked = asyncio.create_task(long.ask("SLOW"))
        await isolated_service.until(lambda: _in_flight(isolated_service))
        await upgrade(isolated_service, force=True)
        began = time.monotonic()
        await isolated_service.update(image=isolated_service.images.two)
        assert asked.done(), "the deployment ended before the request"
        assert time.monotonic() - began > 3
        entry = await asked
    assert not entry.lost and entry.answered_by.rpartition("-")[0].endswith("r1")


@pytest.mark.full
async def test_repeated_gateway_upgrades_lose_no_request(isolated_service: ServiceFixture) -> None:
    await isolated_service.deploy(isolated_service.spec())
    async with isolated_service.load(rate=100, slow_seconds=2) as load:
        for _ in range(5):
            await upgrade(isolated_service, force=True)
    assert len(load.request_log.entries) > 50
    await isolated_service.until(lambda: alone(isolated_service))


def _changing(number: int) -> Callable[[list[str]], bool]:
    """Match the request that is change number `number` to the engine."""
    return lambda asked: asked[-1].startswith("POST") and sum(line.startswith("POST") for line in asked) == number


def _started(asked: list[str]) -> bool:
    """Match the first request after the start of the new gateway, before it can take over."""
    return any("/start" in line for line in asked[:-1])


MOMENTS = (
    ("creates the new one", _changing(1), "undone"),
    ("starts it", _changing(2), "undone"),
    ("has started it", _started, "ended"),
    ("keeps the new one", _changing(3), "ended"),
    ("renames the old one", _changing(5), "ended"),
    ("renames the new one", _changing(6), "ended"),
    ("tells the old one to leave", _changing(8), "ended"),
)
"""Moments at which Sluice is killed: the request that it is about to send to the engine, a predicate
over all requests so far, and whether the next start undoes or ends the upgrade.
"""


@pytest.mark.slow
@pytest.mark.full
async def test_gateway_upgrade_is_undone_or_completed_after_sluice_is_killed(
    isolated_service: ServiceFixture, tmp_path: Path
) -> None:
    """Kill Sluice at each kind of request to the engine.

    The next start undoes the upgrade, or completes it once the new gateway has taken over.
    """
    await isolated_service.deploy(isolated_service.spec())
    async with EngineProxy(tmp_path / "engine.sock") as door, isolated_service.load(rate=60, slow_seconds=0.5) as load:
        isolated_service.sluice.settings["SLUICE_DOCKER_HOST"] = door.base_url
        await restart(isolated_service.sluice)
        for what, moment, outcome in MOMENTS:
            before = await _present(isolated_service)
            door.before = _killer(isolated_service.sluice, moment)
            await _upgrade_or_not(isolated_service)
            await asyncio.to_thread(isolated_service.sluice.wait_for_death)
            door.before = None
            await asyncio.to_thread(isolated_service.sluice.start)
            await isolated_service.until(lambda: alone(isolated_service))
            assert ("undone" if await _present(isolated_service) == before else "ended") == outcome, what
            load.mark(what)
        await isolated_service.update(image=isolated_service.images.two)
    sockets = [path.name for path in (isolated_service.sluice.data / "gateway").glob("*-*.sock")]
    assert sockets == []


def _killer(sluice: SluiceProcess, moment: Callable[[list[str]], bool]) -> Callable[[str], Awaitable[None]]:
    """Return a hook that kills Sluice at the moment; the engine never gets that request."""
    asked: list[str] = []

    async def look(line: str) -> None:
        asked.append(line)
        if sluice.running and moment(asked):
            await asyncio.to_thread(sluice.kill)
            raise ConnectionAbortedError

    return look


async def _present(service_fixture: ServiceFixture) -> str:
    """Return the id of the gateway's container."""
    return (await service_fixture.docker("inspect", "--format", "{{.Id}}", f"{service_fixture.sluice.name}-gateway")).strip()


@pytest.fixture
def tagged(images: Images, tmp_path: Path) -> Iterator[tuple[SluiceProcess, str]]:
    """Run a Sluice whose gateway's image has a tag of its own."""
    client = docker.APIClient(version="auto")
    sluice = SluiceProcess(tmp_path)
    tag = f"{sluice.name}/gateway:1"
    build(client, f"FROM {images.gateway}\nLABEL n=1\n", tag)
    sluice.settings["SLUICE_GATEWAY_IMAGE"] = tag
    try:
        with sluice:
            yield sluice, tag
    finally:
        client.remove_image(tag, force=True)
        client.close()


@pytest.mark.full
async def test_new_image_of_the_same_tag_is_reported_and_used_only_by_an_upgrade(
    tagged: tuple[SluiceProcess, str], images: Images
) -> None:
    sluice, tag = tagged
    client = docker.APIClient(version="auto")
    async with sluice.client() as http:
        service_fixture = ServiceFixture(sluice, http, images)
        await service_fixture.deploy(service_fixture.spec())
        assert await upgrade(service_fixture) == {
            "status": "unchanged",
            "container_id": None,
            "previous_id": None,
            "seconds": 0.0,
        }
        build(client, f"FROM {images.gateway}\nLABEL n=2\n", tag)
        async with service_fixture.load(rate=60, slow_seconds=0.5):
            await restart(sluice)
            reported = (await http.get("/readyz")).json()["gateway"]["outdated"]
            assert "is a different image now" in reported
            assert (await upgrade(service_fixture))["status"] == "upgraded"
            assert (await http.get("/readyz")).json()["gateway"]["outdated"] is None
            await restart(sluice)
            assert (await http.get("/readyz")).json()["gateway"]["outdated"] is None
    client.close()


@pytest.mark.full
async def test_gateway_upgrade_to_an_image_that_does_not_start_changes_nothing(
    tagged: tuple[SluiceProcess, str], images: Images
) -> None:
    sluice, tag = tagged
    client = docker.APIClient(version="auto")
    async with sluice.client() as http:
        service_fixture = ServiceFixture(sluice, http, images)
        await service_fixture.deploy(service_fixture.spec())
        build(client, f'FROM {images.gateway}\nENTRYPOINT ["sh", "-c", "echo this cannot work; exit 3"]\n', tag)
        async with service_fixture.load(rate=60, slow_seconds=0.5) as load:
            answer = await http.post("/gateway/upgrade", json={})
            assert answer.status_code == 502
            assert answer.json()["code"] == "gateway_upgrade_failed"
            assert "this cannot work" in answer.json()["detail"]
            assert await alone(service_fixture)
            await service_fixture.update(image=images.two)
        unharmed(load)
    client.close()


@pytest.mark.full
async def test_higher_maxconn_takes_effect_with_the_gateway_upgrade(images: Images, tmp_path: Path) -> None:
    """From 5,000 to 8,000: some engines give a container no more files than 8,000 connections need."""
    with SluiceProcess(tmp_path, SLUICE_GATEWAY_IMAGE=images.gateway, SLUICE_MAXCONN="5000") as sluice:
        async with sluice.client() as http:
            service_fixture = ServiceFixture(sluice, http, images)
            await service_fixture.deploy(service_fixture.spec())
            async with service_fixture.load(rate=60, slow_seconds=0.5):
                sluice.settings["SLUICE_MAXCONN"] = "8000"
                await restart(sluice)
                gateway = (await http.get("/readyz")).json()["gateway"]
                assert "14000 files" in gateway["outdated"] and gateway["maxconn"] == 5000
                await service_fixture.update(image=images.two)
                await upgrade(service_fixture)
                gateway = (await http.get("/readyz")).json()["gateway"]
                assert gateway["outdated"] is None and gateway["maxconn"] == 8000


@pytest.mark.full
async def test_gateway_upgrade_refused_by_the_engine_changes_nothing(isolated_service: ServiceFixture) -> None:
    await isolated_service.deploy(isolated_service.spec())
    isolated_service.sluice.settings["SLUICE_MAXCONN"] = "1000000"
    async with isolated_service.load(rate=60, slow_seconds=0.5):
        await restart(isolated_service.sluice)
        answer = await isolated_service.http.post("/gateway/upgrade", json={})
        assert answer.status_code == 502 and answer.json()["code"] == "engine_error", answer.text
        assert await alone(isolated_service)
        await isolated_service.update(image=isolated_service.images.two)


async def _in_flight(service_fixture: ServiceFixture) -> bool:
    items = (await service_fixture.get("/instances", service=service_fixture.service))["items"]
    return any(instance["in_flight"] for instance in items)


async def _upgrade_or_not(service_fixture: ServiceFixture) -> None:
    try:
        await service_fixture.http.post("/gateway/upgrade", json={"force": True})
    except httpx.TransportError:
        return
