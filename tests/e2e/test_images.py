"""The images of a service on real parts: other EXPOSE lines, a registry that refuses, an image that the engine lost."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.docker_cli import EngineFault, build, docker
from tests.support.service_fixture import ServiceFixture

pytestmark = [pytest.mark.docker, pytest.mark.anyio]

Build = Callable[[str], str]


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Build]:
    """Return a function that builds an image from a Dockerfile's text and returns its tag; all are removed afterwards."""
    tags: list[str] = []

    def image(dockerfile: str) -> str:
        (tmp_path / "Dockerfile").write_text(dockerfile)
        tags.append(f"sluice-test/variant:{secrets.token_hex(4)}")
        build(tags[-1], tmp_path)
        return tags[-1]

    yield image
    with suppress(EngineFault):
        docker("rmi", "--force", *tags)


async def test_next_image_that_exposes_other_ports_leaves_no_request_unrouted(fixture: ServiceFixture, built: Build) -> None:
    """An image with an EXPOSE for its metrics keeps the port; one with no EXPOSE fails, and the old version serves."""
    await fixture.deploy(fixture.spec(healthcheck=None))
    more, none = built(f"FROM {fixture.images.one}\nEXPOSE 9090\n"), built("FROM scratch\nLABEL without=port\n")
    async with fixture.load():
        updated = await fixture.update(image=more)
        assert [each["code"] for each in updated["warnings"]] == ["port_ambiguous", "no_healthcheck"]
        failed = await fixture.update(image=none, expect="rolled_back")
    assert failed["reason"] == "image_port_unknown"
    service = await fixture.of_service()
    assert (service["status"], service["revision"], service["serving"]) == ("serving", 2, 2)
    assert service["internal_url"]
