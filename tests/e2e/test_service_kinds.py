"""Services of every kind: with an exclusive volume, without a port, linked by name."""

from __future__ import annotations

import json

import pytest

from tests.support.service_fixture import ServiceFixture

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def test_writable_volume_is_used_by_one_instance_at_a_time_and_requests_wait(service_fixture: ServiceFixture) -> None:
    volume = service_fixture.sluice.volume(f"{service_fixture.service}-orders")
    body = service_fixture.spec(replicas=1, volumes=[f"{volume}:/data"])
    assert (await service_fixture.deploy(body))["strategy"] == "recreate"
    async with service_fixture.load(slow_seconds=0.3, rate=40), service_fixture.watched() as watch:
        await service_fixture.update(image=service_fixture.images.two)
        await service_fixture.change("restart")
    assert (watch.least, watch.most) == (0, 1)


async def test_service_without_a_port_is_deployed_updated_and_removed(service_fixture: ServiceFixture) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); print('works', flush=True); signal.pause()"
    worker = {
        "service": service_fixture.service,
        "image": service_fixture.images.one,
        "port": None,
        "replicas": 2,
        "command": ["python", "-c", code],
    }
    first = await service_fixture.deploy(worker)
    assert first["progress"]["serving"] == 2
    service = await service_fixture.of_service()
    assert (service["status"], service["url"], service["internal_url"]) == ("serving", None, None)
    await service_fixture.update(environment={"TURN": "2"})
    instance, *_ = (await service_fixture.get("/instances", service=service_fixture.service))["items"]
    logs = await service_fixture.http.get(f"/instances/{instance['id']}/logs")
    assert "works" in logs.text
    failed = await service_fixture.update(
        command=["python", "-c", "raise SystemExit(4)"], min_ready_seconds=1, expect="rolled_back"
    )
    assert failed["reason"] == "unhealthy_instance"
    await service_fixture.change("scale", {"replicas": 0})
    await service_fixture.remove()
    assert await service_fixture.containers() == []


async def test_names_and_words_that_the_engine_accepts_reach_the_container_unchanged(
    service_fixture: ServiceFixture,
) -> None:
    labels = {
        "traefik.http.routers.lab.tls.domains[0].main": "example.com",
        "caddy.@ws.0_header": "Connection *Upgrade*",
        "ü ö": "x" * 5000,
    }
    environment = {"ConnectionStrings:Default": "Server=db", "2FA_ISSUER": "x", "LONGEST": "x" * (131_071 - 8)}
    word = "x" * 131_071
    command = ["python", "-c", "import signal; signal.signal(15, lambda *_: exit()); signal.pause()", word]
    worker = {"service": service_fixture.service, "image": service_fixture.images.one, "port": None, "command": command}
    await service_fixture.deploy({**worker, "labels": labels, "environment": environment})
    (container,) = await service_fixture.containers()
    found = json.loads(await service_fixture.docker("inspect", container["Id"]))[0]["Config"]
    assert found["Labels"].items() >= labels.items()
    assert {f"{name}={value}" for name, value in environment.items()} <= set(found["Env"])
    assert found["Cmd"][-1] == word
    for field, value in (("command", ["true", word + "x"]), ("environment", {"LONGEST": "x" * (131_072 - 8)})):
        refused = await service_fixture.http.post("/deployments", json={"service": service_fixture.service, field: value})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_spec")
        assert "131071 bytes" in refused.json()["detail"], field


async def test_service_is_reached_by_name_and_internal_url_across_its_deployment(service_fixture: ServiceFixture) -> None:
    api = f"{service_fixture.service}-api"
    await service_fixture.deploy(service_fixture.spec(service=api, routes=[]))
    await service_fixture.deploy(service_fixture.spec(links=[api], replicas=1))
    (caller,) = await service_fixture.containers()
    internal = (await service_fixture.get(f"/services/{api}"))["internal_url"]

    async def called(url: str) -> str:
        code = f"import urllib.request as u; a = u.urlopen({url!r}, timeout=10); print(a.headers['X-Instance'])"
        return await service_fixture.docker("exec", caller["Id"], "python", "-c", code)

    assert (await called(f"http://{api}:8000/")).startswith(f"{api}-r1-")
    assert (await called(internal)).startswith(f"{api}-r1-")
    async with service_fixture.load():
        await service_fixture.deploy({"service": api, "image": service_fixture.images.two})
    assert (await called(f"http://{api}:8000/")).startswith(f"{api}-r2-")
    assert (await called(internal)).startswith(f"{api}-r2-")
    await service_fixture.http.delete(f"/services/{api}", params={"wait": 30})


async def test_link_to_a_later_service_works_once_it_is_deployed(service_fixture: ServiceFixture) -> None:
    api = f"{service_fixture.service}-api"
    await service_fixture.deploy(service_fixture.spec(links=[api], replicas=1))
    await service_fixture.deploy(service_fixture.spec(service=api, routes=[], replicas=1))
    (caller,) = await service_fixture.containers()
    code = f"import urllib.request as u; print(u.urlopen('http://{api}:8000/', timeout=10).status)"
    assert await service_fixture.docker("exec", caller["Id"], "python", "-c", code) == "200"
    await service_fixture.http.delete(f"/services/{api}", params={"wait": 30})


async def test_service_without_a_matching_route_is_not_public(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(routes=[{"host": f"{service_fixture.service}.example"}], replicas=1))
    async with service_fixture.by_hand() as load:
        assert (await load.ask("GET")).status == 404
