"""The images of a service on real parts: other EXPOSE lines, a registry that refuses, an image that the engine lost."""

from __future__ import annotations

import asyncio
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


async def test_refusing_registry_fails_a_deployment_and_an_absent_one_leaves_a_warning(fixture: ServiceFixture) -> None:
    """The older copy of the tag is used only if the registry says nothing."""
    with registry() as shop:
        reference = await push(shop, fixture.images.one)
        try:
            await fixture.deploy(fixture.spec(reference))
            shop.refuses = 429
            async with fixture.load():
                failed = await fixture.update(image=reference, expect="rolled_back")
                changed = await fixture.update(environment={"TURN": "2"}, expect="rolled_back")
                assert [each["reason"] for each in (failed, changed)] == ["image_pull_failed"] * 2
                assert "pull rate limit" in failed["message"]
                shop.stop()
                updated = await fixture.update(environment={"TURN": "2"})
            assert [each["code"] for each in updated["warnings"]] == ["image_not_pulled"]
            assert "connection refused" in updated["warnings"][0]["message"]
        finally:
            await fixture.remove()
            await fixture.docker("rmi", "--force", reference)


async def test_data_of_an_image_that_nothing_keeps_is_told(fixture: ServiceFixture, built: Build) -> None:
    image = built(f"FROM {fixture.images.one}\nVOLUME /cache\n")
    preview = await fixture.http.post("/deployments", params={"dry_run": True}, json=fixture.spec(image))
    deployed = await fixture.deploy(fixture.spec(image))
    for document in (preview.json(), deployed):
        assert [each["code"] for each in document["warnings"]] == ["volume_not_kept"]
        assert "/cache" in document["warnings"][0]["message"]


async def test_image_that_was_pruned_is_pulled_again_for_a_rollback_and_a_scale_out(fixture: ServiceFixture) -> None:
    """If the registry does not have it either, the deployment fails before anything starts."""
    with registry() as shop:
        first, second = await push(shop, fixture.images.one), await push(shop, fixture.images.one)
        try:
            await fixture.deploy(fixture.spec(first))
            await fixture.update(image=second)
            await fixture.docker("rmi", first)
            async with fixture.load():
                back = await fixture.change("rollback")
            assert back["image"] == first and any("manifests/sha256:" in asked for asked in shop.asked)
            await fixture.change("scale", {"replicas": 0})
            digest = await fixture.docker("inspect", "--format", "{{index .RepoDigests 0}}", back["image_id"])
            await fixture.docker("rmi", digest)
            await fixture.change("scale", {"replicas": 2})
            before = await fixture.starts()
            await fixture.docker("rmi", second)
            shop.refuses = 404
            gone = await fixture.change("rollback", {"to_revision": 2}, expect="rolled_back")
            assert gone["reason"] == "image_gone"
            assert second in gone["message"] and "manifest unknown" in gone["message"]
            assert await fixture.starts() == before
        finally:
            await fixture.remove()
            for reference in (first, second):
                with suppress(EngineFault):
                    await fixture.docker("rmi", "--force", reference)
            left = await fixture.docker("images", "--quiet", "--filter", f"reference={shop.host}/*")
            if left:
                await fixture.docker("rmi", "--force", *left.split())
