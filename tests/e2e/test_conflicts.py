"""Two deployments of one service at once, and people who step in, with traffic running."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.service_fixture import Json, Stage, versions

pytestmark = [pytest.mark.docker, pytest.mark.anyio]
SLOWLY = {"HELLO_SLOW_START": "2"}


def _new_ones_run(deployment: Json) -> bool:
    born = [each for each in deployment["instances"] if each["status"] in ("creating", "starting")]
    return deployment["status"] == "progressing" and len(born) == 2


async def test_a_newer_deployment_takes_over(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    async with stage.load() as load:
        body = {"service": stage.service, "image": stage.images.two, "environment": SLOWLY}
        held = asyncio.create_task(stage.http.post("/deployments", params={"wait": 60}, json=body))
        older = await _newest(stage, 2)
        await stage.reaches(older, _new_ones_run)
        newer = await stage.update(image=stage.images.two)
        answer = await held
        load.mark("afterwards")
        await load.until(lambda ledger: ledger.summary("afterwards").requests >= 10)
    assert (answer.status_code, answer.json()["code"]) == (409, "deployment_superseded")
    taken = answer.json()["deployment"]
    assert (taken["status"], taken["reason"], taken["superseded_by"]) == ("superseded", "newer_revision", newer["id"])
    assert newer["revision"] == (await stage.of_service())["revision"]
    assert versions(load, "afterwards") <= {f"r{newer['revision']}", f"r{taken['revision']}"}
    assert len(await stage.containers()) == 2


async def test_a_newer_deployment_is_rejected_when_the_spec_says_so(stage: Stage) -> None:
    await stage.deploy(stage.spec(on_conflict="reject"))
    async with stage.load():
        first = await stage.begin(image=stage.images.two, environment=SLOWLY)
        answer = await stage.http.post("/deployments", json={"service": stage.service, "image": stage.images.one})
        assert (answer.status_code, answer.json()["code"]) == (409, "deployment_in_progress")
        await stage.end_of(first)
    assert (await stage.of_service())["revision"] == first["revision"] or first["revision"] is None


async def test_a_newer_deployment_waits_its_turn_when_the_spec_says_so(stage: Stage) -> None:
    await stage.deploy(stage.spec(on_conflict="queue"))
    async with stage.load():
        first = await stage.begin(image=stage.images.two, environment=SLOWLY)
        await stage.reaches(first, _new_ones_run)
        second = await stage.begin(environment={"HELLO_SLOW_START": None, "TURN": "2"})
        assert second["status"] == "pending"
        done = await stage.end_of(second)
        assert (await stage.end_of(first))["finished_at"] <= done["started_at"]
    assert (await stage.of_service())["revision"] == done["revision"]
    (container, _) = await stage.containers()
    assert "TURN=2" in container["Config"]["Env"]
    assert "HELLO_VERSION=2" in container["Config"]["Env"]


async def test_paused_it_stands_still_and_resumed_it_goes_on(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    before = await stage.starts()
    async with stage.load():
        deployment = await stage.begin(image=stage.images.two, environment=SLOWLY)
        await stage.reaches(deployment, _new_ones_run)
        paused = await stage.act(deployment, "pause")
        assert (paused["status"], paused["reason"], paused["deadline_at"]) == ("paused", "user", None)
        assert before.keys() <= (await stage.starts()).keys()
        again = await stage.http.post(f"/deployments/{deployment['id']}/pause")
        assert (again.status_code, again.json()["code"]) == (409, "not_in_that_state")
        await stage.act(deployment, "resume")
        await stage.end_of(deployment)
    assert not before.keys() & (await stage.starts()).keys()


async def test_aborted_it_goes_back_and_retried_it_comes_again(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    before = await stage.starts()
    async with stage.load():
        deployment = await stage.begin(image=stage.images.two, environment=SLOWLY)
        await stage.reaches(deployment, _new_ones_run)
        await stage.act(deployment, "abort")
        aborted = await stage.end_of(deployment, expect="aborted")
        assert aborted["reason"] == "user"
        assert await stage.starts() == before
        answer = await stage.http.post(f"/deployments/{deployment['id']}/retry", params={"wait": 60})
        retried = await stage.ended(answer, "succeeded")
    assert retried["retry_of"] == deployment["id"]
    assert (await stage.of_service())["revision"] == retried["revision"]


async def test_the_same_key_asks_for_the_same_deployment(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    body, key = {"service": stage.service, "image": stage.images.two}, {"Idempotency-Key": f"ci-{stage.service}"}
    answers = await asyncio.gather(
        *(stage.http.post("/deployments", params={"wait": 60}, json=body, headers=key) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await stage.http.post("/deployments", json={**body, "note": "another"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_many_services_at_once_all_succeed(stage: Stage) -> None:
    names = [f"{stage.service}-{number}" for number in range(6)]
    bodies = [stage.spec(service=name, replicas=1) for name in names]
    await stage.deploy(stage.spec())
    async with stage.load():
        await asyncio.gather(*(stage.deploy(body) for body in bodies))
        await asyncio.gather(*(stage.deploy({"service": name, "image": stage.images.two}) for name in names))
    await asyncio.gather(*(stage.http.delete(f"/services/{name}", params={"wait": 30}) for name in names))


async def _newest(stage: Stage, count: int) -> Json:
    """The service's newest deployment, once there are so many."""

    async def look() -> Json | None:
        rows = (await stage.get("/deployments", service=stage.service))["items"]
        return rows[0] if len(rows) == count else None

    return await stage.until(look)
