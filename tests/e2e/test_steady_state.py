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


async def kill(service_fixture: ServiceFixture, container: Json) -> None:
    """Send SIGKILL to the container's process, as the OOM killer does: the engine restarts it."""
    os.kill(container["State"]["Pid"], signal.SIGKILL)


async def serving(service_fixture: ServiceFixture, count: int) -> list[Json] | None:
    found = await service_fixture.get("/instances", service=service_fixture.service)
    serve = [each for each in found["items"] if each["status"] == "serving"]
    return serve if len(serve) == count else None


async def test_killed_instance_is_restarted_and_no_get_is_lost(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=3))
    async with service_fixture.load(posts=0) as load:
        victim = (await service_fixture.containers())[0]
        await kill(service_fixture, victim)

        async def came_back() -> bool:
            now = {each["Id"]: each["State"]["StartedAt"] for each in await service_fixture.containers()}
            return bool(now.get(victim["Id"], victim["State"]["StartedAt"]) != victim["State"]["StartedAt"])

        await service_fixture.until(came_back)
        await service_fixture.until(lambda: serving(service_fixture, 3))
    unharmed(load)


async def test_instance_that_keeps_dying_is_reported_as_crash_looping(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=2))
    for _ in range(3):
        instances = await service_fixture.until(lambda: serving(service_fixture, 2))
        first = min(instances, key=lambda each: int(each["slot"]))
        name = f"/{service_fixture.sluice.name}-{first['id']}"
        container = next(each for each in await service_fixture.containers() if each["Name"] == name)
        await kill(service_fixture, container)

        async def noticed(before: int = int(first["restarts"]), id: str = first["id"]) -> bool:
            found = (await service_fixture.get("/instances", service=service_fixture.service))["items"]
            return any(each["id"] == id and int(each["restarts"]) > before for each in found)

        await service_fixture.until(noticed, within=40)

    async def warned() -> bool:
        return "crash_looping" in {each["code"] for each in (await service_fixture.of_service())["warnings"]}

    await service_fixture.until(warned)


async def test_removed_container_is_replaced_and_reported(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=3))
    async with service_fixture.load(posts=0):
        victim = (await service_fixture.containers())[0]
        await service_fixture.docker("rm", "--force", victim["Id"])

        async def put_back() -> bool:
            return await serving(service_fixture, 3) is not None and len(await service_fixture.containers()) == 3

        await service_fixture.until(put_back)
    assert victim["Id"] not in await service_fixture.starts()
    events = (await service_fixture.get("/events", service=service_fixture.service, limit=200))["items"]
    gone = victim["Name"].removeprefix(f"/{service_fixture.sluice.name}-")
    assert any(event["type"] == "instance_failed" and event["instance"] == gone for event in events), events


async def test_instance_that_fails_its_checks_is_replaced(service_fixture: ServiceFixture) -> None:
    sick: Json = {"HELLO_UNHEALTHY_AFTER": "4", "HELLO_FAULTY_SLOTS": "2"}
    await service_fixture.deploy(service_fixture.spec(replicas=3, environment=sick))
    first = {each["Id"] for each in await service_fixture.containers()}
    async with service_fixture.load(posts=0):

        async def replaced() -> bool:
            return len({each["Id"] for each in await service_fixture.containers()} - first) >= 1

        await service_fixture.until(replaced, within=40)
    assert len(first & {each["Id"] for each in await service_fixture.containers()}) >= 2


async def test_killed_instance_is_restarted_and_serves_while_sluice_is_down(isolated_service: ServiceFixture) -> None:
    await isolated_service.deploy(isolated_service.spec(replicas=3))
    async with isolated_service.load(posts=0) as load:
        await asyncio.to_thread(isolated_service.sluice.kill)
        victim = (await isolated_service.containers())[0]
        await kill(isolated_service, victim)
        seen = len(load.request_log.entries)
        await load.until(lambda request_log: len(request_log.entries) >= seen + 300)
        await asyncio.to_thread(isolated_service.sluice.start)
        await isolated_service.until(lambda: serving(isolated_service, 3))
    assert victim["Id"] in await isolated_service.starts()


async def test_only_instance_that_the_engine_restarts_is_waited_for_with_sluice_up_or_down(
    isolated_service: ServiceFixture,
) -> None:
    await isolated_service.deploy(isolated_service.spec(replicas=1))
    async with isolated_service.load(posts=0, slow=0) as load:
        await kill(isolated_service, (await isolated_service.containers())[0])
        await load.until(lambda request_log: len(request_log.entries) >= 300)
        await asyncio.to_thread(isolated_service.sluice.kill)
        await kill(isolated_service, (await isolated_service.containers())[0])
        seen = len(load.request_log.entries)
        await load.until(lambda request_log: len(request_log.entries) >= seen + 300)
        await asyncio.to_thread(isolated_service.sluice.start)
