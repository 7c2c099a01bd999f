"""Instances that hang or lose their network: Sluice shows them as unhealthy, says why, and replaces them."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from services.rollouts.reconciler.router_errors import ROUTER_ERROR_TIMEOUT
from tests.support.service_fixture import Json, ServiceFixture

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

CHECK: Json = {"path": "/healthz", "start_period": 5}
"""The default check (every second, 2 s for an answer, 3 failures) with a start period fit for a test."""
NOTICED = 3 * (1 + 2) + 2.0
"""Seconds in which a hung instance must be shown: retries × (interval + timeout), and the poll of the gateway."""
STATES = {"down": "down", "degraded": "unhealthy", "serving": "serving"}
"""Status of a service without a deployment in progress → its state."""
START = 2.0
"""Seconds that an instance of samples/hello takes to start on a busy machine."""


async def hang(service_fixture: ServiceFixture, instance: str = "") -> float:
    """Stop the process of the only instance, or of this one, and return the time."""
    found = await service_fixture.containers()
    container = next(each for each in found if each["Name"].endswith(instance))
    os.kill(container["State"]["Pid"], signal.SIGSTOP)
    return time.monotonic()


async def service_is(service_fixture: ServiceFixture, status: str, *, within: float) -> Json:
    async def look() -> Json | None:
        found = await service_fixture.of_service()
        return found if (found["status"], found["state"]) == (status, STATES[status]) else None

    return await service_fixture.until(look, within=within)


async def instances(service_fixture: ServiceFixture) -> list[Json]:
    return list((await service_fixture.get("/instances", service=service_fixture.service))["items"])


async def checked_by_the_gateway(service_fixture: ServiceFixture) -> bool:
    """Return whether the last check is one of the gateway, whose status is not known."""
    (only,) = await instances(service_fixture)
    return only["last_probe"]["ok"] and only["last_probe"]["status"] is None


async def messages(service_fixture: ServiceFixture, instance: str, *types: str) -> list[str]:
    events = (await service_fixture.get("/events", service=service_fixture.service, limit=200))["items"]
    return [event["message"] for event in events if event["instance"] == instance and event["type"] in types]


async def test_hung_only_instance_is_shown_as_down_and_replaced(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=1, healthcheck=CHECK))
    (before,) = await instances(service_fixture)
    await service_fixture.until(lambda: checked_by_the_gateway(service_fixture))
    began = await hang(service_fixture)
    down = await service_is(service_fixture, "down", within=NOTICED)
    shown = time.monotonic() - began
    (hung,) = await instances(service_fixture)
    assert (hung["id"], hung["status"], hung["unhealthy_reason"]) == (
        before["id"],
        "unhealthy",
        "check failed: L7TOUT after 2000 ms",
    )
    assert (down["serving"], hung["last_probe"]["ok"]) == (0, False)
    assert {"code": "unhealthy", "message": f"{hung['id']} is unhealthy: {hung['unhealthy_reason']}"} in down["warnings"]
    await service_is(service_fixture, "serving", within=NOTICED + 5 + START + 2 - shown)
    answered = await service_fixture.http.get(f"{service_fixture.sluice.gateway}/{service_fixture.service}/")
    served = time.monotonic() - began
    print(f"hang of the only instance: down after {shown:.1f} s, serving again after {served:.1f} s")
    assert (answered.status_code, served < NOTICED + 5 + START + 2) == (200, True)
    (reported,) = await messages(service_fixture, before["id"], "instance_draining")
    assert "unhealthy for" in reported and reported.endswith("L7TOUT after 2000 ms")


async def test_disconnected_instance_of_three_is_replaced_without_loss(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=3))
    async with service_fixture.load(posts=0.3, slow=0.1):
        victim = (await service_fixture.containers())[0]
        began = time.monotonic()
        await service_fixture.docker("network", "disconnect", service_fixture.sluice.name, victim["Id"])

        async def replaced() -> bool:
            found = [each for each in await instances(service_fixture) if each["status"] == "serving"]
            return len(found) == 3 and victim["Id"] not in {each["container_id"] for each in found}

        await service_fixture.until(replaced)
        print(f"disconnect of one of three: replaced after {time.monotonic() - began:.1f} s")
    failed = victim["Name"].removeprefix(f"/{service_fixture.sluice.name}-")
    (reported,) = await messages(service_fixture, failed, "instance_failed")
    assert "was disconnected from Sluice's network" in reported


@pytest.mark.full
async def test_instance_connected_again_with_another_address_is_replaced(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=1, strategy="recreate"))
    (victim,) = await service_fixture.containers()
    async with service_fixture.watched() as watch:
        await service_fixture.docker("network", "disconnect", service_fixture.sluice.name, victim["Id"])
        await service_fixture.docker("network", "connect", service_fixture.sluice.name, victim["Id"])

        async def replaced() -> bool:
            found = [each for each in await instances(service_fixture) if each["status"] == "serving"]
            return [each["container_id"] != victim["Id"] for each in found] == [True]

        await service_fixture.until(replaced)
    assert watch.most == 1


@pytest.mark.full
async def test_paused_instance_of_two_is_shown_at_once_and_serves_again(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=2, healthcheck={**CHECK, "start_period": 60}))
    victim = (await service_fixture.containers())[0]
    await service_fixture.docker("pause", victim["Id"])
    await service_is(service_fixture, "degraded", within=2)
    paused = next(each for each in await instances(service_fixture) if each["status"] == "unhealthy")
    assert paused["unhealthy_reason"] == "its container is paused"
    await service_fixture.docker("unpause", victim["Id"])
    await service_is(service_fixture, "serving", within=NOTICED)
    assert await messages(service_fixture, paused["id"], "instance_recovered")


@pytest.mark.full
async def test_hung_instance_that_must_not_run_twice_is_restarted_in_place(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(
        service_fixture.spec(replicas=1, strategy="recreate", healthcheck=CHECK, stop_grace_period=2)
    )
    async with service_fixture.watched() as watch:
        began = await hang(service_fixture)
        await service_is(service_fixture, "down", within=NOTICED)
        await service_is(service_fixture, "serving", within=40)
    print(f"hang of an instance that must not run twice: serving again after {time.monotonic() - began:.1f} s")
    assert watch.most == 1


@pytest.mark.full
async def test_hung_worker_is_judged_by_its_test_and_replaced(service_fixture: ServiceFixture) -> None:
    test = ["CMD-SHELL", "test -e /tmp/broken && { echo queue is stuck; exit 3; } || exit 0"]
    check = {"test": test, "interval": 1, "timeout": 2, "retries": 2, "start_period": 5}
    await service_fixture.deploy(service_fixture.spec(replicas=1, port=None, routes=[], healthcheck=check))
    (worker,) = await service_fixture.containers()
    await service_fixture.docker("exec", worker["Id"], "touch", "/tmp/broken")
    await service_is(service_fixture, "down", within=10)
    (hung,) = await instances(service_fixture)
    assert hung["unhealthy_reason"] == "test exited with code 3: queue is stuck"

    async def replaced() -> bool:
        return len(await service_fixture.starts()) == 1 and worker["Id"] not in await service_fixture.starts()

    await service_fixture.until(replaced)
    assert (await service_fixture.of_service())["status"] == "serving"


@pytest.mark.full
async def test_gateway_that_hangs_during_a_scale_fails_no_later_deployment(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=3))
    scaling = asyncio.create_task(service_fixture.change("scale", {"replicas": 1}))
    await service_fixture.docker("pause", f"{service_fixture.sluice.name}-gateway")
    await asyncio.sleep(6)  # longer than a command to the gateway may take
    await service_fixture.docker("unpause", f"{service_fixture.sluice.name}-gateway")
    await scaling
    await asyncio.sleep(ROUTER_ERROR_TIMEOUT + 5)
    await service_fixture.update(image=service_fixture.images.two)
    await service_fixture.remove()
