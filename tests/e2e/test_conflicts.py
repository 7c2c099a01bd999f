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


async def test_newer_deployment_supersedes_the_older_one(fixture: ServiceFixture) -> None:
    await fixture.deploy(fixture.spec())
    async with fixture.load() as load:
        body = {"service": fixture.service, "image": fixture.images.two, "environment": SLOWLY}
        held = asyncio.create_task(fixture.http.post("/deployments", params={"wait": 60}, json=body))
        older = await _newest(fixture, 2)
        await fixture.reaches(older, _new_ones_run)
        newer = await fixture.update(image=fixture.images.two)
        answer = await held
        load.mark("afterwards")
        await load.until(lambda ledger: ledger.summary("afterwards").requests >= 10)
    assert (answer.status_code, answer.json()["code"]) == (409, "deployment_superseded")
    taken = answer.json()["deployment"]
    assert (taken["status"], taken["reason"], taken["superseded_by"]) == ("superseded", "newer_revision", newer["id"])
    assert newer["revision"] == (await fixture.of_service())["revision"]
    assert versions(load, "afterwards") <= {f"r{newer['revision']}", f"r{taken['revision']}"}
    assert len(await fixture.containers()) == 2


async def test_newer_deployment_is_rejected_if_on_conflict_is_reject(fixture: ServiceFixture) -> None:
    await fixture.deploy(fixture.spec(on_conflict="reject"))
    async with fixture.load():
        first = await fixture.begin(image=fixture.images.two, environment=SLOWLY)
        answer = await fixture.http.post("/deployments", json={"service": fixture.service, "image": fixture.images.one})
        assert (answer.status_code, answer.json()["code"]) == (409, "deployment_in_progress")
        await fixture.end_of(first)
    assert (await fixture.of_service())["revision"] == first["revision"] or first["revision"] is None


async def test_newer_deployment_is_queued_if_on_conflict_is_queue(fixture: ServiceFixture) -> None:
    await fixture.deploy(fixture.spec(on_conflict="queue"))
    async with fixture.load():
        first = await fixture.begin(image=fixture.images.two, environment=SLOWLY)
        await fixture.reaches(first, _new_ones_run)
        second = await fixture.begin(environment={"HELLO_SLOW_START": None, "TURN": "2"})
        assert second["status"] == "pending"
        done = await fixture.end_of(second)
        assert (await fixture.end_of(first))["finished_at"] <= done["started_at"]
    assert (await fixture.of_service())["revision"] == done["revision"]
    (container, _) = await fixture.containers()
    assert "TURN=2" in container["Config"]["Env"]
    assert "HELLO_VERSION=2" in container["Config"]["Env"]


async def test_deployment_is_paused_and_resumed(fixture: ServiceFixture) -> None:
    await fixture.deploy(fixture.spec())
    before = await fixture.starts()
    async with fixture.load():
        deployment = await fixture.begin(image=fixture.images.two, environment=SLOWLY)
        await fixture.reaches(deployment, _new_ones_run)
        paused = await fixture.act(deployment, "pause")
        assert (paused["status"], paused["reason"], paused["deadline_at"]) == ("paused", "user", None)
        assert before.keys() <= (await fixture.starts()).keys()
        again = await fixture.http.post(f"/deployments/{deployment['id']}/pause")
        assert (again.status_code, again.json()["code"]) == (409, "not_in_that_state")
        await fixture.act(deployment, "resume")
        await fixture.end_of(deployment)
    assert not before.keys() & (await fixture.starts()).keys()


async def test_deployment_is_aborted_and_retried(fixture: ServiceFixture) -> None:
    await fixture.deploy(fixture.spec())
    before = await fixture.starts()
    async with fixture.load():
        deployment = await fixture.begin(image=fixture.images.two, environment=SLOWLY)
        await fixture.reaches(deployment, _new_ones_run)
        await fixture.act(deployment, "abort")
        aborted = await fixture.end_of(deployment, expect="aborted")
        assert aborted["reason"] == "user"
        assert await fixture.starts() == before
        answer = await fixture.http.post(f"/deployments/{deployment['id']}/retry", params={"wait": 60})
        retried = await fixture.ended(answer, "succeeded")
    assert retried["retry_of"] == deployment["id"]
    assert (await fixture.of_service())["revision"] == retried["revision"]


async def test_same_idempotency_key_returns_the_same_deployment(fixture: ServiceFixture) -> None:
    await fixture.deploy(fixture.spec())
    body, key = {"service": fixture.service, "image": fixture.images.two}, {"Idempotency-Key": f"ci-{fixture.service}"}
    answers = await asyncio.gather(
        *(fixture.http.post("/deployments", params={"wait": 60}, json=body, headers=key) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await fixture.http.post("/deployments", json={**body, "note": "another"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_concurrent_deployments_of_many_services_succeed(fixture: ServiceFixture) -> None:
    names = [f"{fixture.service}-{number}" for number in range(6)]
    bodies = [fixture.spec(service=name, replicas=1) for name in names]
    await fixture.deploy(fixture.spec())
    async with fixture.load():
        await asyncio.gather(*(fixture.deploy(body) for body in bodies))
        await asyncio.gather(*(fixture.deploy({"service": name, "image": fixture.images.two}) for name in names))
    await asyncio.gather(*(fixture.http.delete(f"/services/{name}", params={"wait": 30}) for name in names))


async def _newest(fixture: ServiceFixture, count: int) -> Json:
    """Return the newest deployment once the service has `count` of them."""

    async def look() -> Json | None:
        rows = (await fixture.get("/deployments", service=fixture.service))["items"]
        return rows[0] if len(rows) == count else None

    return await fixture.until(look)
