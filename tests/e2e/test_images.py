"""The images of a service on real parts: other EXPOSE lines, a registry that refuses, an image that the engine lost."""

from __future__ import annotations

import asyncio
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.docker_cli import EngineFault, build, docker
from tests.support.image_registry import Registry, registry
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


async def push(shop: Registry, image: str) -> str:
    """Push an image of the engine, under an id of its own, and return the reference to pull it by."""
    with tempfile.TemporaryDirectory() as directory:
        saved = Path(directory) / "image.tar"
        await asyncio.to_thread(docker, "save", "--output", str(saved), image)
        return await asyncio.to_thread(shop.push_saved, f"hello-{secrets.token_hex(4)}:1", saved)


async def test_next_image_that_exposes_other_ports_leaves_no_request_unrouted(
    service_fixture: ServiceFixture, built: Build
) -> None:
    """An image with an EXPOSE for its metrics keeps the port; one with no EXPOSE fails, and the old version serves."""
    await service_fixture.deploy(service_fixture.spec(healthcheck=None))
    more, none = built(f"FROM {service_fixture.images.one}\nEXPOSE 9090\n"), built("FROM scratch\nLABEL without=port\n")
    async with service_fixture.load():
        updated = await service_fixture.update(image=more)
        assert [each["code"] for each in updated["warnings"]] == ["port_ambiguous", "no_healthcheck"]
        failed = await service_fixture.update(image=none, expect="rolled_back")
    assert failed["reason"] == "image_port_unknown"
    service = await service_fixture.of_service()
    assert (service["status"], service["revision"], service["serving"]) == ("serving", 2, 2)
    assert service["internal_url"]


async def test_refusing_registry_fails_a_deployment_and_an_absent_one_leaves_a_warning(
    service_fixture: ServiceFixture,
) -> None:
    """The older copy of the tag is used only if the registry says nothing."""
    with registry() as shop:
        reference = await push(shop, service_fixture.images.one)
        try:
            await service_fixture.deploy(service_fixture.spec(reference))
            shop.refuses = 429
            async with service_fixture.load():
                failed = await service_fixture.update(image=reference, expect="rolled_back")
                changed = await service_fixture.update(environment={"TURN": "2"}, expect="rolled_back")
                assert [each["reason"] for each in (failed, changed)] == ["image_pull_failed"] * 2
                assert "pull rate limit" in failed["message"]
                shop.stop()
                updated = await service_fixture.update(environment={"TURN": "2"})
            assert [each["code"] for each in updated["warnings"]] == ["image_not_pulled"]
            assert "connection refused" in updated["warnings"][0]["message"]
        finally:
            await service_fixture.remove()
            await service_fixture.docker("rmi", "--force", reference)


async def test_data_of_an_image_that_nothing_keeps_is_told(service_fixture: ServiceFixture, built: Build) -> None:
    image = built(f"FROM {service_fixture.images.one}\nVOLUME /cache\n")
    preview = await service_fixture.http.post("/deployments", params={"dry_run": True}, json=service_fixture.spec(image))
    deployed = await service_fixture.deploy(service_fixture.spec(image))
    for document in (preview.json(), deployed):
        assert [each["code"] for each in document["warnings"]] == ["volume_not_kept"]
        assert "/cache" in document["warnings"][0]["message"]


async def test_image_that_was_pruned_is_pulled_again_for_a_rollback_and_a_scale_out(service_fixture: ServiceFixture) -> None:
    """If the registry does not have it either, the deployment fails before anything starts."""
    with registry() as shop:
        first, second = await push(shop, service_fixture.images.one), await push(shop, service_fixture.images.one)
        try:
            await service_fixture.deploy(service_fixture.spec(first))
            await service_fixture.update(image=second)
            await service_fixture.docker("rmi", first)
            async with service_fixture.load():
                back = await service_fixture.change("rollback")
            assert back["image"] == first and any("manifests/sha256:" in asked for asked in shop.asked)
            await service_fixture.change("scale", {"replicas": 0})
            digest = await service_fixture.docker("inspect", "--format", "{{index .RepoDigests 0}}", back["image_id"])
            await service_fixture.docker("rmi", digest)
            await service_fixture.change("scale", {"replicas": 2})
            before = await service_fixture.starts()
            await service_fixture.docker("rmi", second)
            shop.refuses = 404
            gone = await service_fixture.change("rollback", {"to_revision": 2}, expect="rolled_back")
            assert gone["reason"] == "image_gone"
            # the engine may still hold the manifest: then the registry refuses the blobs ("unknown blob")
            assert second in gone["message"] and re.search("manifest unknown|unknown blob", gone["message"])
            assert await service_fixture.starts() == before
        finally:
            await service_fixture.remove()
            for reference in (first, second):
                with suppress(EngineFault):
                    await service_fixture.docker("rmi", "--force", reference)
            left = await service_fixture.docker("images", "--quiet", "--filter", f"reference={shop.host}/*")
            if left:
                await service_fixture.docker("rmi", "--force", *left.split())
