"""Nothing is deployed, and instances die, sicken and vanish: traffic goes on, each comes back or is replaced; it is said."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.support.service_fixture import Json, Stage, unharmed

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def kill(stage: Stage, container: Json) -> None:
    """SIGKILL to its process, as when memory runs out: the engine brings it back."""
    os.kill(container["State"]["Pid"], signal.SIGKILL)


async def serving(stage: Stage, count: int) -> list[Json] | None:
    found = await stage.get("/instances", service=stage.service)
    serve = [each for each in found["items"] if each["status"] == "serving"]
    return serve if len(serve) == count else None


async def test_one_that_is_killed_comes_back_and_no_read_is_lost(stage: Stage) -> None:
    await stage.deploy(stage.spec(replicas=3))
    async with stage.load(posts=0) as load:
        victim = (await stage.containers())[0]
        await kill(stage, victim)

        async def came_back() -> bool:
            now = {each["Id"]: each["State"]["StartedAt"] for each in await stage.containers()}
            return bool(now.get(victim["Id"], victim["State"]["StartedAt"]) != victim["State"]["StartedAt"])

        await stage.until(came_back)
        await stage.until(lambda: serving(stage, 3))
    unharmed(load)


async def test_who_keeps_dying_is_said_to_be_crash_looping(stage: Stage) -> None:
    await stage.deploy(stage.spec(replicas=2))
    for _ in range(3):
        instances = await stage.until(lambda: serving(stage, 2))
        first = min(instances, key=lambda each: int(each["slot"]))
        name = f"/{stage.sluice.name}-{first['id']}"
        container = next(each for each in await stage.containers() if each["Name"] == name)
        await kill(stage, container)

        async def noticed(before: int = int(first["restarts"]), id: str = first["id"]) -> bool:
            found = (await stage.get("/instances", service=stage.service))["items"]
            return any(each["id"] == id and int(each["restarts"]) > before for each in found)

        await stage.until(noticed, within=40)

    async def warned() -> bool:
        return "crash_looping" in {each["code"] for each in (await stage.of_service())["warnings"]}

    await stage.until(warned)


async def test_what_somebody_removes_by_hand_is_put_back_and_said(stage: Stage) -> None:
    await stage.deploy(stage.spec(replicas=3))
    async with stage.load(posts=0):
        victim = (await stage.containers())[0]
        await stage.docker("rm", "--force", victim["Id"])

        async def put_back() -> bool:
            return await serving(stage, 3) is not None and len(await stage.containers()) == 3

        await stage.until(put_back)
    assert victim["Id"] not in await stage.starts()
    events = (await stage.get("/events", service=stage.service, limit=200))["items"]
    gone = victim["Name"].removeprefix(f"/{stage.sluice.name}-")
    assert any(event["type"] == "instance_failed" and event["instance"] == gone for event in events), events


async def test_one_that_lives_and_fails_its_checks_is_taken_out_and_replaced(stage: Stage) -> None:
    sick: Json = {"HELLO_UNHEALTHY_AFTER": "4", "HELLO_FAULTY_SLOTS": "2"}
    await stage.deploy(stage.spec(replicas=3, environment=sick))
    first = {each["Id"] for each in await stage.containers()}
    async with stage.load(posts=0):

        async def replaced() -> bool:
            return len({each["Id"] for each in await stage.containers()} - first) >= 1

        await stage.until(replaced, within=40)
    assert len(first & {each["Id"] for each in await stage.containers()}) >= 2


async def test_while_sluice_is_away_one_dies_and_comes_back_and_serves(own: Stage) -> None:
    await own.deploy(own.spec(replicas=3))
    async with own.load(posts=0) as load:
        await asyncio.to_thread(own.sluice.kill)
        victim = (await own.containers())[0]
        await kill(own, victim)
        seen = len(load.ledger.entries)
        await load.until(lambda ledger: len(ledger.entries) >= seen + 300)
        await asyncio.to_thread(own.sluice.start)
        await own.until(lambda: serving(own, 3))
    assert victim["Id"] in await own.starts()
