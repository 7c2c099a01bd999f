"""New versions that do not come to serve: all of them go, what served was never touched, and not one request is lost."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.service_fixture import NEVER_HEALTHY, QUICK_CHECK, Json, Stage, unharmed

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

NOWHERE = "127.0.0.1:1/no/such:1"
"""An image of a registry that refuses at once."""

BROKEN: dict[str, tuple[dict[str, str], str]] = {
    "exits at once": ({"HELLO_EXIT_AT_START": "3"}, "it exits at once"),
    "never healthy": ({"HELLO_NEVER_HEALTHY": "1"}, "listens on port"),
    "one of three exits": ({"HELLO_EXIT_AT_START": "3", "HELLO_FAULTY_SLOTS": "2"}, "it exits at once"),
    "one of three is never healthy": ({"HELLO_NEVER_HEALTHY": "1", "HELLO_FAULTY_SLOTS": "2"}, "listens on port"),
}

REFUSED: dict[str, tuple[Json, str]] = {
    "more cores than there are": ({"resources": {"cpus": 512}}, "CPUs"),
    "a command that is not there": ({"command": ["/no/such/program"]}, "/no/such/program"),
    "a user that is not there": ({"user": "nobody-of-that-name"}, "nobody-of-that-name"),
    "a working directory that is a file": ({"working_dir": "/etc/passwd"}, "/etc/passwd"),
}


async def test_an_image_that_does_not_exist_starts_nothing(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    before = await stage.starts()
    async with stage.load(), stage.watched() as watch:
        failed = await stage.update(image=NOWHERE, expect="rolled_back")
    assert failed["reason"] == "image_pull_failed"
    assert NOWHERE in failed["message"]
    assert (watch.least, watch.most) == (2, 2)
    assert await stage.starts() == before


async def test_an_image_that_does_not_exist_fails_a_first_deployment_and_leaves_nothing(stage: Stage) -> None:
    failed = await stage.deploy(stage.spec(NOWHERE, port=8000), expect="failed")
    assert failed["reason"] == "image_pull_failed"
    assert await stage.containers() == []


@pytest.mark.parametrize("way", BROKEN)
async def test_a_broken_version_is_rolled_back_and_the_old_one_never_touched(stage: Stage, way: str) -> None:
    environment, says = BROKEN[way]
    await stage.deploy(stage.spec(replicas=3))
    before = await stage.starts()
    async with stage.load():
        broken = {"environment": environment, "healthcheck": {"start_period": 3}}
        failed = await stage.update(image=stage.images.two, **broken, expect="rolled_back")
    assert failed["reason"] == "unhealthy_instance"
    assert await stage.starts() == before
    assert len(await stage.containers()) == 3
    told = [instance for instance in failed["instances"] if instance["status"] == "failed"]
    assert told
    assert all(says in instance["log_tail"] for instance in told)
    if "exits" in way:
        assert {instance["exit_code"] for instance in told} == {3}
    else:
        assert any(instance["last_probe"]["status"] == 503 for instance in told)
    if "one of three" in way:
        assert {instance["slot"] for instance in told} == {2}


@pytest.mark.parametrize("way", BROKEN)
async def test_a_first_version_that_is_broken_leaves_nothing_running(stage: Stage, way: str) -> None:
    environment, _ = BROKEN[way]
    check = {**QUICK_CHECK, "start_period": 3}
    failed = await stage.deploy(stage.spec(replicas=3, environment=environment, healthcheck=check), expect="failed")
    assert failed["reason"] == "unhealthy_instance"
    assert await stage.containers() == []


async def test_without_progress_until_the_deadline_the_old_version_stays(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    before = await stage.starts()
    late: Json = {"environment": {"HELLO_SLOW_START": "60"}, "progress_deadline_seconds": 2}
    check = {"path": "/healthz", "start_period": 60}
    async with stage.load():
        failed = await stage.update(image=stage.images.two, healthcheck=check, **late, expect="rolled_back")
    assert failed["reason"] == "progress_deadline_exceeded"
    assert await stage.starts() == before


async def test_a_new_version_that_dies_while_the_old_ones_drain_gives_way_to_them(stage: Stage) -> None:
    await stage.deploy(stage.spec(replicas=3))
    dies = {"HELLO_DIE_AFTER": "2", "HELLO_FAULTY_SLOTS": "1"}
    async with stage.load(posts=0, slow=0.3, slow_seconds=4) as load:
        failed = await stage.update(image=stage.images.two, environment=dies, expect="rolled_back")
        load.mark("afterwards")
        await load.until(lambda ledger: ledger.summary("afterwards").requests >= 20)
    assert failed["reason"] == "unhealthy_instance"
    assert "after it had served" in failed["message"] or "exited" in failed["message"]
    service = await stage.of_service()
    assert (service["status"], service["revision"], service["serving"]) == ("serving", 1, 3)
    assert len(await stage.containers()) == 3


@pytest.mark.parametrize("way", REFUSED)
async def test_what_the_engine_refuses_is_told_in_its_words(stage: Stage, way: str) -> None:
    fields, words = REFUSED[way]
    await stage.deploy(stage.spec())
    before = await stage.starts()
    async with stage.load():
        failed = await stage.update(**fields, expect="rolled_back")
    assert words in failed["message"]
    assert await stage.starts() == before
    assert len(await stage.containers()) == 2


async def test_what_the_engine_refuses_fails_a_first_deployment_and_leaves_nothing(stage: Stage) -> None:
    failed = await stage.deploy(stage.spec(command=["/no/such/program"]), expect="failed")
    assert "/no/such/program" in failed["message"]
    assert await stage.containers() == []


async def test_too_little_memory_is_said_and_the_old_version_stays(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    before = await stage.starts()
    async with stage.load():
        failed = await stage.update(resources={"memory": "6m"}, expect="rolled_back")
    assert "memory" in failed["message"]
    assert await stage.starts() == before
    assert len(await stage.containers()) == 2


async def test_a_port_that_is_taken_fails_a_first_deployment_and_harms_no_other_service(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    address = urlsplit((await stage.of_service())["internal_url"])
    services = (await stage.get("/services", removed=True, limit=200))["items"]
    taken = 1 + max(urlsplit(each["internal_url"]).port or 0 for each in services if each["internal_url"])
    other = f"{stage.service}b"
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((address.hostname, taken))
        squatter.listen()
        async with stage.load():
            failed = await stage.deploy(stage.spec(service=other, routes=[]), expect="failed")
    assert failed["reason"] == "gateway_unverified"
    assert str(taken) in failed["message"]
    assert await stage.containers(other) == []
    await stage.http.delete(f"/services/{other}", params={"wait": 30})


async def test_a_link_whose_port_is_taken_on_the_bridge_fails_the_deployment_that_asks_for_it(stage: Stage) -> None:
    api, port = f"{stage.service}a", 8055
    at_port: Json = {"port": port, "environment": {"PORT": str(port)}, "routes": [], "replicas": 1}
    await stage.deploy(stage.spec(service=api, **at_port))
    await stage.deploy(stage.spec())
    before = await stage.starts()
    bridge = urlsplit((await stage.of_service())["internal_url"]).hostname
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((bridge, port))
        squatter.listen()
        async with stage.load():
            failed = await stage.update(links=[api], expect="rolled_back")
            await stage.deploy({"service": api, "image": stage.images.two})
    assert failed["reason"] == "gateway_unverified"
    assert f"the link to {api}: {bridge}:{port} is in use" in failed["message"]
    assert await stage.starts() == before
    await stage.update(links=[api])
    async with httpx.AsyncClient(base_url=f"http://{bridge}:{port}") as http:
        assert (await http.get("/", headers={"Host": f"{api}:{port}"})).status_code == 200
    await stage.update(links=[])
    await stage.http.delete(f"/services/{api}", params={"wait": 30})


async def test_an_address_that_a_stranger_took_is_passed_over(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    strangers = [
        await stage.docker(
            "run", "--detach", "--network", stage.sluice.name, "--entrypoint", "sleep", stage.images.one, "600"
        )
        for _ in range(4)
    ]
    try:
        async with stage.load():
            await stage.update(image=stage.images.two)
    finally:
        await stage.docker("rm", "--force", *strangers)


async def test_paused_on_failure_it_waits_for_a_person_who_aborts(stage: Stage) -> None:
    await stage.deploy(stage.spec(failure_action="pause"))
    before = await stage.starts()
    async with stage.load() as load:
        body = {"service": stage.service, **NEVER_HEALTHY}
        answer = await stage.http.post("/deployments", params={"wait": 60}, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "deployment_paused")
        paused = answer.json()["deployment"]
        assert (paused["status"], paused["reason"]) == ("paused", "unhealthy_instance")
        assert set(paused["actions"]) == {"resume", "abort"}
        told = [instance["log_tail"] for instance in paused["instances"] if instance["status"] == "failed"]
        assert told and all("listens on port" in (tail or "") for tail in told), told
        await stage.act(paused, "abort")
        await stage.end_of(paused, expect="aborted")
    unharmed(load)
    assert await stage.starts() == before
