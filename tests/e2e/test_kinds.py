"""Services of every kind: with a volume of their own, without a port, and calling each other by name."""

from __future__ import annotations

import pytest

from tests.support.service_fixture import Stage

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def test_a_writable_volume_is_never_had_by_two_at_once_and_the_requests_wait(stage: Stage) -> None:
    volume = stage.sluice.volume(f"{stage.service}-orders")
    body = stage.spec(replicas=1, volumes=[f"{volume}:/data"])
    assert (await stage.deploy(body))["strategy"] == "recreate"
    async with stage.load(slow_seconds=0.3, rate=40), stage.watched() as watch:
        await stage.update(image=stage.images.two)
        await stage.change("restart")
    assert (watch.least, watch.most) == (0, 1)


async def test_a_worker_without_a_port_is_deployed_updated_and_removed(stage: Stage) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); print('works', flush=True); signal.pause()"
    worker = {
        "service": stage.service,
        "image": stage.images.one,
        "port": None,
        "replicas": 2,
        "command": ["python", "-c", code],
    }
    first = await stage.deploy(worker)
    assert first["progress"]["serving"] == 2
    service = await stage.of_service()
    assert (service["status"], service["url"], service["internal_url"]) == ("serving", None, None)
    await stage.update(environment={"TURN": "2"})
    instance, *_ = (await stage.get("/instances", service=stage.service))["items"]
    logs = await stage.http.get(f"/instances/{instance['id']}/logs")
    assert "works" in logs.text
    failed = await stage.update(command=["python", "-c", "raise SystemExit(4)"], min_ready_seconds=1, expect="rolled_back")
    assert failed["reason"] == "unhealthy_instance"
    await stage.change("scale", {"replicas": 0})
    await stage.remove()
    assert await stage.containers() == []


async def test_one_service_calls_another_by_name_and_by_internal_url_through_its_deployment(stage: Stage) -> None:
    api = f"{stage.service}-api"
    await stage.deploy(stage.spec(service=api, routes=[]))
    await stage.deploy(stage.spec(links=[api], replicas=1))
    (caller,) = await stage.containers()
    internal = (await stage.get(f"/services/{api}"))["internal_url"]

    async def called(url: str) -> str:
        code = f"import urllib.request as u; a = u.urlopen({url!r}, timeout=10); print(a.headers['X-Instance'])"
        return await stage.docker("exec", caller["Id"], "python", "-c", code)

    assert (await called(f"http://{api}:8000/")).startswith(f"{api}-r1-")
    assert (await called(internal)).startswith(f"{api}-r1-")
    async with stage.load():
        await stage.deploy({"service": api, "image": stage.images.two})
    assert (await called(f"http://{api}:8000/")).startswith(f"{api}-r2-")
    assert (await called(internal)).startswith(f"{api}-r2-")
    await stage.http.delete(f"/services/{api}", params={"wait": 30})


async def test_who_links_to_a_service_that_comes_later_finds_it_then(stage: Stage) -> None:
    api = f"{stage.service}-api"
    await stage.deploy(stage.spec(links=[api], replicas=1))
    await stage.deploy(stage.spec(service=api, routes=[], replicas=1))
    (caller,) = await stage.containers()
    code = f"import urllib.request as u; print(u.urlopen('http://{api}:8000/', timeout=10).status)"
    assert await stage.docker("exec", caller["Id"], "python", "-c", code) == "200"
    await stage.http.delete(f"/services/{api}", params={"wait": 30})


async def test_a_service_without_routes_is_not_public(stage: Stage) -> None:
    await stage.deploy(stage.spec(routes=[{"host": f"{stage.service}.example"}], replicas=1))
    async with stage.by_hand() as load:
        assert (await load.ask("GET")).status == 404
