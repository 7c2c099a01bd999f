"""New versions that never become available: they are removed, the old ones stay untouched.

No request is lost.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.service_fixture import NEVER_HEALTHY, QUICK_CHECK, Json, ServiceFixture, unharmed

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

NOWHERE = "127.0.0.1:1/no/such:1"
"""An image of a registry that refuses connections."""

BROKEN: dict[str, tuple[dict[str, str], str]] = {
    "exits at once": ({"HELLO_EXIT_AT_START": "3"}, "this version is broken"),
    "never healthy": ({"HELLO_NEVER_HEALTHY": "1"}, "listens on port"),
    "one of three exits": ({"HELLO_EXIT_AT_START": "3", "HELLO_FAULTY_SLOTS": "2"}, "this version is broken"),
    "one of three is never healthy": ({"HELLO_NEVER_HEALTHY": "1", "HELLO_FAULTY_SLOTS": "2"}, "listens on port"),
}

REFUSED: dict[str, tuple[Json, str]] = {
    "more cores than there are": ({"resources": {"cpus": 512}}, "CPUs"),
    "a command that is not there": ({"command": ["/no/such/program"]}, "/no/such/program"),
    "a user that is not there": ({"user": "missing-user"}, "missing-user"),
    "a working directory that is a file": ({"working_dir": "/etc/passwd"}, "/etc/passwd"),
}


async def test_missing_image_starts_no_instance(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    before = await service_fixture.starts()
    async with service_fixture.load(), service_fixture.watched() as watch:
        failed = await service_fixture.update(image=NOWHERE, expect="rolled_back")
    assert failed["reason"] == "image_pull_failed"
    assert NOWHERE in failed["message"]
    assert (watch.least, watch.most) == (2, 2)
    assert await service_fixture.starts() == before


async def test_missing_image_fails_a_first_deployment_and_leaves_nothing(service_fixture: ServiceFixture) -> None:
    failed = await service_fixture.deploy(service_fixture.spec(NOWHERE, port=8000), expect="failed")
    assert failed["reason"] == "image_pull_failed"
    assert await service_fixture.containers() == []


@pytest.mark.parametrize("way", BROKEN)
async def test_broken_version_is_rolled_back_and_the_old_version_untouched(
    service_fixture: ServiceFixture, way: str
) -> None:
    environment, says = BROKEN[way]
    await service_fixture.deploy(service_fixture.spec(replicas=3))
    before = await service_fixture.starts()
    async with service_fixture.load():
        broken = {"environment": environment, "healthcheck": {"start_period": 3}}
        failed = await service_fixture.update(image=service_fixture.images.two, **broken, expect="rolled_back")
    assert failed["reason"] == "unhealthy_instance"
    assert await service_fixture.starts() == before
    assert len(await service_fixture.containers()) == 3
    reported = [instance for instance in failed["instances"] if instance["status"] == "failed"]
    assert reported
    assert all(says in instance["log_tail"] for instance in reported)
    if "exits" in way:
        assert {instance["exit_code"] for instance in reported} == {3}
    else:
        assert any(instance["last_probe"]["status"] == 503 for instance in reported)
    if "one of three" in way:
        assert {instance["slot"] for instance in reported} == {2}


@pytest.mark.parametrize("way", BROKEN)
async def test_broken_first_version_leaves_no_container(service_fixture: ServiceFixture, way: str) -> None:
    environment, _ = BROKEN[way]
    check = {**QUICK_CHECK, "start_period": 3}
    failed = await service_fixture.deploy(
        service_fixture.spec(replicas=3, environment=environment, healthcheck=check), expect="failed"
    )
    assert failed["reason"] == "unhealthy_instance"
    assert await service_fixture.containers() == []


async def test_exceeded_progress_deadline_rolls_back_to_the_old_version(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    before = await service_fixture.starts()
    late: Json = {"environment": {"HELLO_SLOW_START": "60"}, "progress_deadline_seconds": 2}
    check = {"path": "/healthz", "start_period": 60}
    async with service_fixture.load():
        failed = await service_fixture.update(
            image=service_fixture.images.two, healthcheck=check, **late, expect="rolled_back"
        )
    assert failed["reason"] == "progress_deadline_exceeded"
    assert await service_fixture.starts() == before


async def test_new_version_that_dies_while_old_instances_drain_is_rolled_back(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=3))
    dies = {"HELLO_DIE_AFTER": "2", "HELLO_FAULTY_SLOTS": "1"}
    async with service_fixture.load(posts=0, slow=0.3, slow_seconds=4) as load:
        failed = await service_fixture.update(image=service_fixture.images.two, environment=dies, expect="rolled_back")
        load.mark("afterwards")
        await load.until(lambda ledger: ledger.summary("afterwards").requests >= 20)
    assert failed["reason"] == "unhealthy_instance"
    assert "after it had served" in failed["message"] or "exited" in failed["message"]
    service = await service_fixture.of_service()
    assert (service["status"], service["revision"], service["serving"]) == ("serving", 1, 3)
    assert len(await service_fixture.containers()) == 3


@pytest.mark.parametrize("way", REFUSED)
async def test_engine_error_is_reported_verbatim(service_fixture: ServiceFixture, way: str) -> None:
    fields, words = REFUSED[way]
    await service_fixture.deploy(service_fixture.spec())
    before = await service_fixture.starts()
    async with service_fixture.load():
        failed = await service_fixture.update(**fields, expect="rolled_back")
    assert words in failed["message"]
    assert await service_fixture.starts() == before
    assert len(await service_fixture.containers()) == 2


async def test_engine_error_fails_a_first_deployment_and_leaves_nothing(service_fixture: ServiceFixture) -> None:
    failed = await service_fixture.deploy(service_fixture.spec(command=["/no/such/program"]), expect="failed")
    assert "/no/such/program" in failed["message"]
    assert await service_fixture.containers() == []


async def test_too_low_memory_limit_is_reported_and_rolled_back(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    before = await service_fixture.starts()
    async with service_fixture.load():
        failed = await service_fixture.update(resources={"memory": "6m"}, expect="rolled_back")
    assert "memory" in failed["message"]
    assert await service_fixture.starts() == before
    assert len(await service_fixture.containers()) == 2


async def test_taken_internal_port_fails_only_the_deployment_that_needs_it(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    address = urlsplit((await service_fixture.of_service())["internal_url"])
    services = (await service_fixture.get("/services", removed=True, limit=200))["items"]
    taken = 1 + max(urlsplit(each["internal_url"]).port or 0 for each in services if each["internal_url"])
    other = f"{service_fixture.service}b"
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((address.hostname, taken))
        squatter.listen()
        async with service_fixture.load():
            failed = await service_fixture.deploy(service_fixture.spec(service=other, routes=[]), expect="failed")
    assert failed["reason"] == "gateway_unverified"
    assert str(taken) in failed["message"]
    assert await service_fixture.containers(other) == []
    await service_fixture.http.delete(f"/services/{other}", params={"wait": 30})


async def test_taken_link_port_fails_only_the_deployment_that_adds_the_link(
    service_fixture: ServiceFixture,
) -> None:
    api, port = f"{service_fixture.service}a", 8055
    at_port: Json = {"port": port, "environment": {"PORT": str(port)}, "routes": [], "replicas": 1}
    await service_fixture.deploy(service_fixture.spec(service=api, **at_port))
    await service_fixture.deploy(service_fixture.spec())
    before = await service_fixture.starts()
    bridge = urlsplit((await service_fixture.of_service())["internal_url"]).hostname
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((bridge, port))
        squatter.listen()
        async with service_fixture.load():
            failed = await service_fixture.update(links=[api], expect="rolled_back")
            await service_fixture.deploy({"service": api, "image": service_fixture.images.two})
    assert failed["reason"] == "gateway_unverified"
    assert f"the link to {api}: " in failed["message"] and f"{bridge}:{port} is in use" in failed["message"]
    assert await service_fixture.starts() == before
    await service_fixture.update(links=[api])
    async with httpx.AsyncClient(base_url=f"http://{bridge}:{port}") as http:
        assert (await http.get("/", headers={"Host": f"{api}:{port}"})).status_code == 200
    await service_fixture.update(links=[])
    await service_fixture.http.delete(f"/services/{api}", params={"wait": 30})


async def test_addresses_used_by_foreign_containers_are_skipped(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    strangers = [
        await service_fixture.docker(
            "run",
            "--detach",
            "--network",
            service_fixture.sluice.name,
            "--entrypoint",
            "sleep",
            service_fixture.images.one,
            "600",
        )
        for _ in range(4)
    ]
    try:
        async with service_fixture.load():
            await service_fixture.update(image=service_fixture.images.two)
    finally:
        await service_fixture.docker("rm", "--force", *strangers)


async def test_failed_deployment_with_failure_action_pause_waits_for_abort(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(failure_action="pause"))
    before = await service_fixture.starts()
    async with service_fixture.load() as load:
        body = {"service": service_fixture.service, **NEVER_HEALTHY}
        answer = await service_fixture.http.post("/deployments", params={"wait": 60}, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "deployment_paused")
        paused = answer.json()["deployment"]
        assert (paused["status"], paused["reason"]) == ("paused", "unhealthy_instance")
        assert set(paused["actions"]) == {"resume", "abort"}
        reported = [instance["log_tail"] for instance in paused["instances"] if instance["status"] == "failed"]
        assert reported and all("listens on port" in (tail or "") for tail in reported), reported
        await service_fixture.act(paused, "abort")
        await service_fixture.end_of(paused, expect="aborted")
    unharmed(load)
    assert await service_fixture.starts() == before
