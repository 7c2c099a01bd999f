"""Containers that Sluice did not make, with names and labels that look like its own, are never touched."""

from __future__ import annotations

import json

import pytest

from tests.support.service_fixture import Json, Stage

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def test_strangers_that_look_like_ours_live_through_everything(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    ours, *_ = await stage.containers()
    name, service = stage.sluice.name, stage.service
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
            run = ["run", "--detach", "--network", "none", *words, "--entrypoint", "sleep", stage.images.one, "600"]
            ids[what] = await stage.docker(*run)
        before = await _states(stage, list(ids.values()))
        await stage.update(image=stage.images.two)
        await stage.change("scale", {"replicas": 3})
        await stage.change("rollback")
        await stage.change("scale", {"replicas": 0})
        await stage.remove()
        assert await _states(stage, list(ids.values())) == before
    finally:
        await stage.docker("rm", "--force", *ids.values())


async def test_a_stranger_who_has_the_name_of_the_next_instance_is_left_alone_and_told_of(stage: Stage) -> None:
    await stage.deploy(stage.spec())
    name = f"{stage.sluice.name}-{stage.service}-r2-1"
    stranger = await stage.docker(
        "run", "--detach", "--network", "none", "--name", name, "--entrypoint", "sleep", stage.images.one, "600"
    )
    try:
        before = await _states(stage, [stranger])
        async with stage.load():
            failed = await stage.update(image=stage.images.two, expect="rolled_back")
        assert name in failed["message"]
        assert await _states(stage, [stranger]) == before
        await stage.update(image=stage.images.two)
        assert await _states(stage, [stranger]) == before
    finally:
        await stage.docker("rm", "--force", stranger)


async def _states(stage: Stage, ids: list[str]) -> dict[str, Json]:
    found = json.loads(await stage.docker("inspect", *ids))
    return {
        each["Id"]: {**each["State"], "name": each["Name"], "restart": each["HostConfig"]["RestartPolicy"]} for each in found
    }
