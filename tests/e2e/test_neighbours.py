"""Foreign containers whose names and labels resemble Sluice's are never touched."""

from __future__ import annotations

import json

import pytest

from tests.support.service_fixture import Json, ServiceFixture

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def test_foreign_containers_with_similar_names_and_labels_stay_untouched(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    ours, *_ = await service_fixture.containers()
    name, service = service_fixture.sluice.name, service_fixture.service
    copied = [word for key, value in ours["Config"]["Labels"].items() for word in ("--label", f"{key}={value}")]
    strangers = {
        "a name like an instance's": ["--name", f"{name}-{service}-r1-99"],
        "the next instance's number and more": ["--name", f"{name}-{service}-r2-1x"],
        "another Sluice's": ["--label", f"sluice.name={name}x", "--label", f"sluice.service={service}"],
        "a name that begins like ours": ["--label", f"sluice.name={name[:-1]}", "--label", f"sluice.service={service}"],
        "a service's label alone": ["--label", f"sluice.service={service}"],
        "the labels of one of ours, under another name": [*copied, "--name", f"{name}-copy-of-{service}"],
        "our label and no more": ["--label", f"sluice.name={name}"],
    }
    ids = {}
    try:
        for what, words in strangers.items():
            run = [
                "run",
                "--detach",
                "--network",
                "none",
                *words,
                "--entrypoint",
                "sleep",
                service_fixture.images.one,
                "600",
            ]
            ids[what] = await service_fixture.docker(*run)
        before = await _states(service_fixture, list(ids.values()))
        copy = f"{name}-copy-of-{service}"
        ready = await service_fixture.until(lambda: _naming(service_fixture, copy))
        assert f"docker rm --force {copy}" in [each["remove"] for each in ready["unknown_containers"]]
        instances = next(each for each in (await service_fixture.get("/doctor"))["findings"] if each["part"] == "instances")
        assert instances["status"] == "warning" and f"docker rm --force {copy}" in instances["advice"]
        await service_fixture.update(image=service_fixture.images.two)
        await service_fixture.change("scale", {"replicas": 3})
        await service_fixture.change("rollback")
        await service_fixture.change("scale", {"replicas": 0})
        await service_fixture.remove()
        assert await _states(service_fixture, list(ids.values())) == before
    finally:
        await service_fixture.docker("rm", "--force", *ids.values())


async def test_renamed_instance_serves_on_and_is_removed_with_its_service(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec(replicas=2))
    renamed, other = await service_fixture.containers()
    async with service_fixture.load():
        await service_fixture.docker("rename", renamed["Id"], f"debug-{service_fixture.service}")
        await service_fixture.update(environment={"TURN": "2"})
    listed = await service_fixture.docker(
        "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label=sluice.service={service_fixture.service}"
    )
    assert not {renamed["Id"], other["Id"]} & set(listed.split())
    assert len(listed.split()) == 2


async def _naming(service_fixture: ServiceFixture, container: str) -> Json | None:
    ready: Json = await service_fixture.get("/readyz")
    return ready if container in {each["name"] for each in ready["unknown_containers"]} else None


async def test_network_that_was_pruned_while_nothing_ran_is_created_again(isolated_service: ServiceFixture) -> None:
    await isolated_service.deploy(isolated_service.spec(replicas=1))
    await isolated_service.change("scale", {"replicas": 0})
    network = isolated_service.sluice.name
    await isolated_service.docker("network", "rm", network)
    assert (await isolated_service.http.get("/readyz")).json()["network"]["ok"] is False
    await isolated_service.change("scale", {"replicas": 2})
    async with isolated_service.load():
        await isolated_service.change("restart")
    assert (await isolated_service.http.get("/readyz")).json()["network"] == {"ok": True}


async def test_foreign_container_with_the_next_instances_name_is_reported_and_kept(service_fixture: ServiceFixture) -> None:
    await service_fixture.deploy(service_fixture.spec())
    name = f"{service_fixture.sluice.name}-{service_fixture.service}-r2-1"
    stranger = await service_fixture.docker(
        "run", "--detach", "--network", "none", "--name", name, "--entrypoint", "sleep", service_fixture.images.one, "600"
    )
    try:
        before = await _states(service_fixture, [stranger])
        async with service_fixture.load():
            failed = await service_fixture.update(image=service_fixture.images.two, expect="rolled_back")
        assert name in failed["message"]
        assert await _states(service_fixture, [stranger]) == before
        await service_fixture.update(image=service_fixture.images.two)
        assert await _states(service_fixture, [stranger]) == before
    finally:
        await service_fixture.docker("rm", "--force", stranger)


async def _states(service_fixture: ServiceFixture, ids: list[str]) -> dict[str, Json]:
    found = json.loads(await service_fixture.docker("inspect", *ids))
    return {
        each["Id"]: {**each["State"], "name": each["Name"], "restart": each["HostConfig"]["RestartPolicy"]} for each in found
    }
