"""Host paths on a real engine, resolved before a start by a container that is removed again."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.engine.docker import mounts
from services.engine.docker.codec import NAME, ROLE
from services.engine.docker.control_plane import DockerControlPlane
from services.engine.docker.engine import DockerEngine
from services.engine.docker.mounts import RESOLVER_ROLE
from services.engine.port import EngineError
from services.spec import VolumeMount
from tests.support.docker_fixture import IMAGE, DockerFixture

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

WAITS = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"


def mounted(path: Path | str) -> tuple[VolumeMount, ...]:
    return (VolumeMount(type="bind", source=str(path), target="/data"),)


def resolvers(docker_fixture: DockerFixture) -> list[str]:
    found = docker_fixture.client.containers(
        all=True, filters={"label": [f"{NAME}={docker_fixture.name}", f"{ROLE}={RESOLVER_ROLE}"]}
    )
    return [container["Id"] for container in found]


def left_over(docker_fixture: DockerFixture) -> str:
    """Create a resolver that never started, as a Sluice killed in between leaves it."""
    name = f"{docker_fixture.name}-{RESOLVER_ROLE}-0123abcd"
    labels = {NAME: docker_fixture.name, ROLE: RESOLVER_ROLE}
    return str(docker_fixture.client.create_container(IMAGE, ["true"], name=name, labels=labels)["Id"])


async def test_symlink_made_by_an_instance_cannot_be_mounted(
    engine: DockerEngine, docker_fixture: DockerFixture, tmp_path: Path
) -> None:
    await engine.start(docker_fixture.spec("maker-r1-1", script=WAITS, volumes=mounted(tmp_path)))
    docker_fixture.execute("maker-r1-1", "ln", "-s", "/", "/data/link")
    assert (tmp_path / "link").resolve() == Path("/")
    for path in (tmp_path / "link", tmp_path / "link" / "etc"):
        with pytest.raises(EngineError, match="symbolic link to /") as refused:
            await engine.start(docker_fixture.spec("thief-r1-1", script=WAITS, volumes=mounted(path)))
        assert refused.value.reason == "mount_refused"
    assert [view.instance for view in await engine.observe()] == ["maker-r1-1"] and resolvers(docker_fixture) == []


async def test_symlink_in_a_private_directory_is_detected(
    engine: DockerEngine, docker_fixture: DockerFixture, tmp_path: Path
) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "link").symlink_to("/etc")
    owned = docker_fixture.client.create_container(
        IMAGE,
        ["sh", "-c", "chown 1234 /data && chmod 700 /data"],
        labels={NAME: docker_fixture.name},
        host_config=docker_fixture.client.create_host_config(binds=[f"{private}:/data"], network_mode="none"),
    )["Id"]
    docker_fixture.client.start(owned)
    assert docker_fixture.client.wait(owned)["StatusCode"] == 0
    with pytest.raises(EngineError) as refused:
        await engine.start(docker_fixture.spec("web-r1-1", volumes=mounted(private / "link")))
    assert refused.value.reason == "mount_refused"


async def test_mount_of_the_engines_own_data_is_refused(engine: DockerEngine, docker_fixture: DockerFixture) -> None:
    root = Path(docker_fixture.client.info()["DockerRootDir"])
    for path in (root, root / "volumes", root.parent):
        with pytest.raises(EngineError, match="keeps its own data") as refused:
            await engine.start(docker_fixture.spec("web-r1-1", volumes=mounted(path)))
        assert refused.value.reason == "mount_refused"


async def test_stale_resolver_is_removed_at_a_later_start(
    engine: DockerEngine, docker_fixture: DockerFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = left_over(docker_fixture)
    await engine.start(docker_fixture.spec("web-r1-1", script=WAITS, volumes=mounted(tmp_path)))
    assert resolvers(docker_fixture) == [stray], "another start may use it"
    monkeypatch.setattr(mounts, "_RESOLVER_MAX_AGE", -60)
    await engine.start(docker_fixture.spec("web-r1-2", script=WAITS, volumes=mounted(tmp_path)))
    assert resolvers(docker_fixture) == []


async def test_stale_resolver_is_removed_with_its_sluice(docker_fixture: DockerFixture, tmp_path: Path) -> None:
    left_over(docker_fixture)
    control_plane = DockerControlPlane(docker_fixture.name)
    gone = await control_plane.remove_all(str(tmp_path / "data"), ("sluice.db",), IMAGE)
    control_plane.close()
    assert f"container {docker_fixture.name}-resolver-0123abcd" in gone and resolvers(docker_fixture) == []
