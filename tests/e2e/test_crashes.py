"""Sluice is stopped or killed during changes: no request fails, and it resumes from what it observes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.service_fixture import NEVER_HEALTHY, Json, ServiceFixture
from tests.support.sluice_process import free_port

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

MOMENTS: dict[str, Callable[[Json], bool]] = {
    "before anything is started": lambda deployment: True,
    "while new ones start": lambda deployment: _count(deployment, "starting", "creating") > 0,
    "when new ones serve": lambda deployment: deployment["progress"]["serving"] > 0,
    "while old ones drain": lambda deployment: deployment["progress"]["draining"] > 0,
}


def _count(deployment: Json, *statuses: str) -> int:
    return sum(each["status"] in statuses for each in deployment["instances"])


@pytest.mark.parametrize("moment", MOMENTS)
async def test_deployment_continues_after_sluice_is_killed_and_restarted(
    isolated_service: ServiceFixture, moment: str
) -> None:
    await isolated_service.deploy(isolated_service.spec(replicas=3))
    async with isolated_service.load(slow=0.2, slow_seconds=1.5):
        deployment = await isolated_service.begin(image=isolated_service.images.two)
        await isolated_service.reaches(deployment, MOMENTS[moment])
        await asyncio.to_thread(isolated_service.sluice.kill)
        await asyncio.to_thread(isolated_service.sluice.start)
        done = await isolated_service.end_of(deployment)
    assert done["finished_at"] is not None
    rows = (await isolated_service.get("/deployments", service=isolated_service.service))["items"]
    assert [row["id"] for row in rows] == [2, 1]
    await _nothing_stray(isolated_service, revision=2, replicas=3)
    ends = Counter(event["type"] for event in await isolated_service.events(deployment))
    assert ends["succeeded"] == 1


async def test_deployment_continues_after_sluice_is_stopped_and_restarted(isolated_service: ServiceFixture) -> None:
    await isolated_service.deploy(isolated_service.spec(replicas=3))
    async with isolated_service.load():
        body = {
            "service": isolated_service.service,
            "image": isolated_service.images.two,
            "environment": {"HELLO_SLOW_START": "1"},
        }
        held = asyncio.create_task(isolated_service.http.post("/deployments", params={"wait": 60}, json=body))
        async with isolated_service.http.stream("GET", "/events", headers={"Accept": "text/event-stream"}) as stream:
            reported = asyncio.create_task(_read(stream.aiter_lines()))
            await isolated_service.until(lambda: _second(isolated_service))
            began = time.monotonic()
            assert await asyncio.to_thread(isolated_service.sluice.stop, 10) == 0
            assert time.monotonic() - began < 8
            assert await asyncio.wait_for(reported, 5)
        answer = await held
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        await asyncio.to_thread(isolated_service.sluice.start)
        await isolated_service.end_of({"id": 2})
    await _nothing_stray(isolated_service, revision=2, replicas=3)


async def test_instance_that_dies_while_sluice_is_down_is_replaced_after_the_restart(
    isolated_service: ServiceFixture,
) -> None:
    await isolated_service.deploy(isolated_service.spec(replicas=3))
    async with isolated_service.load(posts=0, slow=0):
        await asyncio.to_thread(isolated_service.sluice.kill)
        victim, *_ = await isolated_service.containers()
        await isolated_service.docker("kill", victim["Id"])
        await isolated_service.docker("rm", "--force", victim["Id"])
        await asyncio.to_thread(isolated_service.sluice.start)

        async def whole() -> bool:
            return bool((await isolated_service.of_service())["serving"] == 3 and len(await isolated_service.starts()) == 3)

        await isolated_service.until(whole)
    await _nothing_stray(isolated_service, revision=1, replicas=3)


async def test_interrupted_rollback_is_completed_after_the_restart(isolated_service: ServiceFixture) -> None:
    await isolated_service.deploy(isolated_service.spec())
    before = await isolated_service.starts()
    async with isolated_service.load():
        deployment = await isolated_service.begin(image=isolated_service.images.two, **NEVER_HEALTHY)
        await isolated_service.reaches(deployment, lambda now: now["status"] in ("rolling_back", "rolled_back"))
        await asyncio.to_thread(isolated_service.sluice.kill)
        await asyncio.to_thread(isolated_service.sluice.start)
        failed = await isolated_service.end_of(deployment, expect="rolled_back")
    assert failed["reason"] == "unhealthy_instance"
    assert await isolated_service.starts() == before
    await _nothing_stray(isolated_service, revision=1, replicas=2)


async def test_second_process_on_the_same_data_directory_is_refused(isolated_service: ServiceFixture) -> None:
    process = await asyncio.create_subprocess_exec(
        *isolated_service.sluice.command, env={**isolated_service.sluice.environment, "SLUICE_PORT": str(free_port())},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, said = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert "another" in said.decode().lower() or "already" in said.decode().lower()
    assert (await isolated_service.get("/readyz"))["status"]


async def _second(isolated_service: ServiceFixture) -> bool:
    rows = (await isolated_service.get("/deployments", service=isolated_service.service))["items"]
    return len(rows) == 2 and rows[0]["status"] == "progressing"


async def _read(lines: object) -> int:
    """Count the lines until the stream ends."""
    count = 0
    async for _ in lines:  # type: ignore[attr-defined]
        count += 1
    return count


async def _nothing_stray(isolated_service: ServiceFixture, *, revision: int, replicas: int) -> None:
    service = await isolated_service.of_service()
    assert (service["revision"], service["serving"]) == (revision, replicas)
    containers = await isolated_service.containers()
    assert {each["Config"]["Labels"]["sluice.revision"] for each in containers} == {str(revision)}
    assert len(containers) == replicas
    known = {
        each["container_id"]
        for each in (await isolated_service.get("/instances", service=isolated_service.service))["items"]
    }
    assert {each["Id"] for each in containers} <= known
