"""Privileges that containers on a real engine lack, and labels that images cannot set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.engine.docker.control_plane import DockerControlPlane
from services.engine.docker.engine import DockerEngine
from tests.support.docker_fixture import IMAGE, DockerFixture, build

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

WAITS = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"
NET_RAW = 1 << 13


@pytest.fixture
def image_with_forged_labels(docker_fixture: DockerFixture) -> Iterator[str]:
    """Build an image whose labels claim to be this Sluice's gateway and another service's instance."""
    tag = f"{docker_fixture.name}/pretender:1"
    labels = (
        f"sluice.role=gateway sluice.name={docker_fixture.name} sluice.service=other sluice.built=x sluice.invented=y team=z"
    )
    yield build(docker_fixture.client, f"FROM {IMAGE}\nLABEL {labels}\n", tag)
    docker_fixture.client.remove_image(tag, force=True)


def capabilities(docker_fixture: DockerFixture, instance: str) -> tuple[bool, int]:
    """Return whether process 1 has no-new-privileges, and its capability bounding set."""
    lines = docker_fixture.execute(instance, "cat", "/proc/1/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines)
    return status["NoNewPrivs"] == "1", int(status["CapBnd"], 16)


async def test_image_labels_cannot_make_a_container_the_gateway(
    engine: DockerEngine, docker_fixture: DockerFixture, image_with_forged_labels: str
) -> None:
    view = await engine.start(docker_fixture.spec("web-r1-1", image_id=image_with_forged_labels, script=WAITS))
    labels = docker_fixture.inspect("web-r1-1")["Config"]["Labels"]
    assert {key: labels[key] for key in ("sluice.role", "sluice.built", "sluice.invented")} == dict.fromkeys(
        ("sluice.role", "sluice.built", "sluice.invented"), ""
    )
    assert (labels["sluice.name"], labels["sluice.service"], labels["team"]) == (docker_fixture.name, "web", "z")
    by_role = docker_fixture.client.containers(all=True, filters={"label": "sluice.role=gateway"})
    assert view.container_id not in [found["Id"] for found in by_role]
    control_plane = DockerControlPlane(docker_fixture.name)
    assert not await control_plane.gateway_runs()
    control_plane.close()


async def test_instance_has_no_new_privileges_and_no_raw_sockets(
    engine: DockerEngine, docker_fixture: DockerFixture
) -> None:
    await engine.start(docker_fixture.spec("web-r1-1", script=WAITS))
    no_new_privileges, bounds = capabilities(docker_fixture, "web-r1-1")
    assert no_new_privileges and bounds and not bounds & NET_RAW


async def test_raw_sockets_can_be_allowed_by_the_operator(docker_fixture: DockerFixture) -> None:
    engine = DockerEngine(docker_fixture.name, docker_fixture.name, IMAGE, keep_net_raw=True)
    await engine.start(docker_fixture.spec("web-r1-1", script=WAITS))
    no_new_privileges, bounds = capabilities(docker_fixture, "web-r1-1")
    assert no_new_privileges and bounds & NET_RAW
    engine.close()
