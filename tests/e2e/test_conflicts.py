"""Concurrent deployments of one service, and actions of users on them, under load."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.service_fixture import Json, ServiceFixture, versions

pytestmark = [pytest.mark.docker, pytest.mark.anyio]
SLOWLY = {"HELLO_SLOW_START": "2"}


def _new_ones_run(deployment: Json) -> bool:
    born = [each for each in deployment["instances"] if each["status"] in ("creating", "starting")]
    return deployment["status"] == "progressing" and len(born) == 2


async def test_newer_deployment_supersedes_the_older_one(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    async with service_fixture.load() as load:
        body = {"service": service_fixture.service, "image": service_fixture.images.two, "environment": SLOWLY}
        held = asyncio.create_task(service_fixture.http.post("/deployments", params={"wait": 60}, json=body))
        older = await _newest(service_fixture, 2)
        await service_fixture.reaches(older, _new_ones_run)
        newer = await service_fixture.update(image=service_fixture.images.two)
        answer = await held
        load.mark("afterwards")
        await load.until(lambda ledger: ledger.summary("afterwards").requests >= 10)
    assert (answer.status_code, answer.json()["code"]) == (409, "deployment_superseded")
    taken = answer.json()["deployment"]
    assert (taken["status"], taken["reason"], taken["superseded_by"]) == ("superseded", "newer_revision", newer["id"])
    assert newer["revision"] == (await service_fixture.of_service())["revision"]
    assert versions(load, "afterwards") <= {f"r{newer['revision']}", f"r{taken['revision']}"}
    assert len(await service_fixture.containers()) == 2


async def test_newer_deployment_is_rejected_if_on_conflict_is_reject(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(on_conflict="reject"))
    async with service_fixture.load():
        first = await service_fixture.begin(image=service_fixture.images.two, environment=SLOWLY)
        answer = await service_fixture.http.post(
            "/deployments", json={"service": service_fixture.service, "image": service_fixture.images.one}
        )
        assert (answer.status_code, answer.json()["code"]) == (409, "deployment_in_progress")
        await service_fixture.end_of(first)
    assert (await service_fixture.of_service())["revision"] == first["revision"] or first["revision"] is None


async def test_newer_deployment_is_queued_if_on_conflict_is_queue(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(on_conflict="queue"))
    async with service_fixture.load():
        first = await service_fixture.begin(image=service_fixture.images.two, environment=SLOWLY)
        await service_fixture.reaches(first, _new_ones_run)
        second = await service_fixture.begin(environment={"HELLO_SLOW_START": None, "TURN": "2"})
        assert second["status"] == "pending"
        done = await service_fixture.end_of(second)
        assert (await service_fixture.end_of(first))["finished_at"] <= done["started_at"]
    assert (await service_fixture.of_service())["revision"] == done["revision"]
    (container, _) = await service_fixture.containers()
    assert "TURN=2" in container["Config"]["Env"]
    assert "HELLO_VERSION=2" in container["Config"]["Env"]


async def test_deployment_is_paused_and_resumed(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    before = await service_fixture.starts()
    async with service_fixture.load():
        deployment = await service_fixture.begin(image=service_fixture.images.two, environment=SLOWLY)
        await service_fixture.reaches(deployment, _new_ones_run)
        paused = await service_fixture.act(deployment, "pause")
        assert (paused["status"], paused["reason"], paused["deadline_at"]) == ("paused", "user", None)
        assert before.keys() <= (await service_fixture.starts()).keys()
        again = await service_fixture.http.post(f"/deployments/{deployment['id']}/pause")
        assert (again.status_code, again.json()["code"]) == (409, "not_in_that_state")
        await service_fixture.act(deployment, "resume")
        await service_fixture.end_of(deployment)
    assert not before.keys() & (await service_fixture.starts()).keys()


async def test_deployment_is_aborted_and_retried(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    before = await service_fixture.starts()
    async with service_fixture.load():
        deployment = await service_fixture.begin(image=service_fixture.images.two, environment=SLOWLY)
        await service_fixture.reaches(deployment, _new_ones_run)
        await service_fixture.act(deployment, "abort")
        aborted = await service_fixture.end_of(deployment, expect="aborted")
        assert aborted["reason"] == "user"
        assert await service_fixture.starts() == before
        answer = await service_fixture.http.post(f"/deployments/{deployment['id']}/retry", params={"wait": 60})
        retried = await service_fixture.ended(answer, "succeeded")
    assert retried["retry_of"] == deployment["id"]
    assert (await service_fixture.of_service())["revision"] == retried["revision"]


async def test_same_idempotency_key_returns_the_same_deployment(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    body, key = (
        {"service": service_fixture.service, "image": service_fixture.images.two},
        {"Idempotency-Key": f"ci-{service_fixture.service}"},
    )
    answers = await asyncio.gather(
        *(service_fixture.http.post("/deployments", params={"wait": 60}, json=body, headers=key) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await service_fixture.http.post("/deployments", json={**body, "note": "another"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_concurrent_deployments_of_many_services_succeed(service_fixture: ServiceFixture) -> None:
    names = [f"{service_fixture.service}-{number}" for number in range(6)]
    bodies = [service_fixture.spec(service=name, replicas=1) for name in names]
    await service_fixture.deploy(service_fixture.spec())
    async with service_fixture.load():
        await asyncio.gather(*(service_fixture.deploy(body) for body in bodies))
        await asyncio.gather(
            *(service_fixture.deploy({"service": name, "image": service_fixture.images.two}) for name in names)
        )
    await asyncio.gather(*(service_fixture.http.delete(f"/services/{name}", params={"wait": 30}) for name in names))


async def _newest(service_fixture: ServiceFixture, count: int) -> Json:
    """Return the newest deployment once the service has `count` of them."""

    async def look() -> Json | None:
        rows = (await service_fixture.get("/deployments", service=service_fixture.service))["items"]
        return rows[0] if len(rows) == count else None

    return await service_fixture.until(look)
