"""Without a deployment: instances that die, fail checks or vanish return or are replaced.

No GET is lost, and every event is recorded.
"""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.support.service_fixture import Json, ServiceFixture, unharmed

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def kill(fixture: ServiceFixture, container: Json) -> None:
    """Send SIGKILL to the container's process, as the OOM killer does: the engine restarts it."""
    os.kill(container["State"]["Pid"], signal.SIGKILL)


async def serving(fixture: ServiceFixture, count: int) -> list[Json] | None:
    found = await fixture.get("/instances", service=fixture.service)
    serve = [each for each in found["items"] if each["status"] == "serving"]
    return serve if len(serve) == count else None


async def test_killed_instance_is_restarted_and_no_get_is_lost(fixture: ServiceFixture) -> None:
    await fixture.deploy(fixture.spec(replicas=3))
    async with fixture.load(posts=0) as load:
        victim = (await fixture.containers())[0]
        await kill(fixture, victim)

        async def came_back() -> bool:
            now = {each["Id"]: each["State"]["StartedAt"] for each in await fixture.containers()}
            return bool(now.get(victim["Id"], victim["State"]["StartedAt"]) != victim["State"]["StartedAt"])

        await fixture.until(came_back)
        await fixture.until(lambda: serving(fixture, 3))
    unharmed(load)


async def test_instance_that_keeps_dying_is_reported_as_crash_looping(fixture: ServiceFixture) -> None:
    await fixture.deploy(fixture.spec(replicas=2))
    for _ in range(3):
        instances = await fixture.until(lambda: serving(fixture, 2))
        first = min(instances, key=lambda each: int(each["slot"]))
        name = f"/{fixture.sluice.name}-{first['id']}"
        container = next(each for each in await fixture.containers() if each["Name"] == name)
        await kill(fixture, container)

        async def noticed(before: int = int(first["restarts"]), id: str = first["id"]) -> bool:
            found = (await fixture.get("/instances", service=fixture.service))["items"]
            return any(each["id"] == id and int(each["restarts"]) > before for each in found)

        await fixture.until(noticed, within=40)

    async def warned() -> bool:
        return "crash_looping" in {each["code"] for each in (await fixture.of_service())["warnings"]}

    await fixture.until(warned)


async def test_removed_container_is_replaced_and_reported(fixture: ServiceFixture) -> None:
    await fixture.deploy(fixture.spec(replicas=3))
    async with fixture.load(posts=0):
        victim = (await fixture.containers())[0]
        await fixture.docker("rm", "--force", victim["Id"])

        async def put_back() -> bool:
            return await serving(fixture, 3) is not None and len(await fixture.containers()) == 3

        await fixture.until(put_back)
    assert victim["Id"] not in await fixture.starts()
    events = (await fixture.get("/events", service=fixture.service, limit=200))["items"]
    gone = victim["Name"].removeprefix(f"/{fixture.sluice.name}-")
    assert any(event["type"] == "instance_failed" and event["instance"] == gone for event in events), events


async def test_instance_that_fails_its_checks_is_replaced(fixture: ServiceFixture) -> None:
    sick: Json = {"HELLO_UNHEALTHY_AFTER": "4", "HELLO_FAULTY_SLOTS": "2"}
    await fixture.deploy(fixture.spec(replicas=3, environment=sick))
    first = {each["Id"] for each in await fixture.containers()}
    async with fixture.load(posts=0):

        async def replaced() -> bool:
            return len({each["Id"] for each in await fixture.containers()} - first) >= 1

        await fixture.until(replaced, within=40)
    assert len(first & {each["Id"] for each in await fixture.containers()}) >= 2


async def test_killed_instance_is_restarted_and_serves_while_sluice_is_down(own: ServiceFixture) -> None:
    await own.deploy(own.spec(replicas=3))
    async with own.load(posts=0) as load:
        await asyncio.to_thread(own.sluice.kill)
        victim = (await own.containers())[0]
        await kill(own, victim)
        seen = len(load.request_log.entries)
        await load.until(lambda request_log: len(request_log.entries) >= seen + 300)
        await asyncio.to_thread(own.sluice.start)
        await own.until(lambda: serving(own, 3))
    assert victim["Id"] in await own.starts()


async def test_only_instance_that_the_engine_restarts_is_waited_for_with_sluice_up_or_down(own: ServiceFixture) -> None:
    await own.deploy(own.spec(replicas=1))
    async with own.load(posts=0, slow=0) as load:
        await kill(own, (await own.containers())[0])
        await load.until(lambda request_log: len(request_log.entries) >= 300)
        await asyncio.to_thread(own.sluice.kill)
        await kill(own, (await own.containers())[0])
        seen = len(load.request_log.entries)
        await load.until(lambda request_log: len(request_log.entries) >= seen + 300)
        await asyncio.to_thread(own.sluice.start)
