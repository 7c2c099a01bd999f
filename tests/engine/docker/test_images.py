"""Pulls from a registry that answers, refuses, requires a password, or hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress

import pytest
from docker.errors import APIError

from services.engine.docker import images
from services.engine.docker.engine import DockerEngine
from services.engine.port import EngineError
from tests.support.docker_fixture import DockerFixture
from tests.support.image_registry import Registry, header, registry

pytestmark = [pytest.mark.anyio, pytest.mark.docker]


@pytest.fixture
def shop(docker_fixture: DockerFixture) -> Iterator[Registry]:
    with registry() as it:
        yield it
        for image in docker_fixture.client.images(filters={"label": "sluice.test=engine"}):
            for tag in image["RepoTags"] or image["RepoDigests"] or []:
                if tag.startswith(it.host):
                    with suppress(APIError):
                        docker_fixture.client.remove_image(tag, force=True)


async def test_image_is_pulled(engine: DockerEngine, shop: Registry) -> None:
    image = await engine.pull(shop.push("web:1", "one"))
    assert image.id.startswith("sha256:") and image.exposed_ports == (8080,)


async def test_moved_tag_is_pulled_again_and_the_old_image_stays(engine: DockerEngine, shop: Registry) -> None:
    first = await engine.pull(shop.push("web:1", "one"))
    second = await engine.pull(shop.push("web:1", "two"))
    assert first.id != second.id
    assert (await engine.pull(first.id)).id == first.id


async def test_local_digest_is_not_pulled_again(engine: DockerEngine, docker_fixture: DockerFixture, shop: Registry) -> None:
    reference = shop.push("web:1", "one")
    await engine.pull(reference)
    digest = docker_fixture.client.inspect_image(reference)["RepoDigests"][0]
    shop.asked.clear()
    assert (await engine.pull(digest)).exposed_ports == (8080,)
    assert shop.asked == []


async def test_unknown_tag_fails_with_the_registrys_message(engine: DockerEngine, shop: Registry) -> None:
    with pytest.raises(EngineError, match="manifest unknown") as refused:
        await engine.pull(f"{shop.host}/web:none")
    assert refused.value.reason == "image_pull_failed"


async def test_credentials_of_a_pull_are_used_and_never_logged(
    engine: DockerEngine, shop: Registry, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    shop.users["ci"] = "s3cret-word"
    reference = shop.push("web:1", "one")
    wrong, right = header("ci", "wr0ng-word", shop.host), header("ci", "s3cret-word", shop.host)
    for auth in (None, wrong):
        with pytest.raises(EngineError) as refused:
            await engine.pull(reference, auth)
        assert refused.value.reason == "image_pull_failed"
        assert "wr0ng-word" not in str(refused.value) and wrong not in str(refused.value)
    assert (await engine.pull(reference, right)).exposed_ports == (8080,)
    written = caplog.text + "".join(capfd.readouterr())
    assert not [word for word in ("s3cret-word", "wr0ng-word", wrong, right) if word in written]


async def test_local_image_is_used_if_the_registry_does_not_answer(
    engine: DockerEngine, shop: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = shop.push("web:1", "one")
    image = await engine.pull(reference)
    monkeypatch.setattr(images, "_FIRST_ANSWER_TIMEOUT_IF_PRESENT", 0.5)
    monkeypatch.setattr(images, "_FIRST_ANSWER_TIMEOUT", 0.5)
    shop.hangs = True
    async with asyncio.timeout(10):
        used = await engine.pull(reference)
        assert used.id == image.id and "did not start to answer" in used.not_pulled
        asked = len(shop.asked)
        assert (await engine.pull(reference)).id == image.id
        assert len(shop.asked) == asked, "a registry that is silent is left in peace for a while"
        with pytest.raises(EngineError, match="did not start to answer") as refused:
            await engine.pull(f"{shop.host}/web:2")
    assert refused.value.reason == "image_pull_failed"


@pytest.mark.filterwarnings("ignore:docker-credential-of-another-machine")
async def test_unreadable_credentials_do_not_prevent_a_public_pull(
    engine: DockerEngine, shop: Registry, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("docker")
    (home / "config.json").write_text('{"credsStore": "of-another-machine"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(home))
    engine.clients.close()
    assert (await engine.pull(shop.push("web:1", "one"))).exposed_ports == (8080,)
    with pytest.raises(EngineError, match="could not be read"):
        await engine.pull(f"{shop.host}/web:none")


async def test_invalid_image_reference_is_refused(engine: DockerEngine) -> None:
    for reference in ("Web:1", "web:", "a//b"):
        with pytest.raises(EngineError) as refused:
            await engine.pull(reference)
        assert refused.value.reason == "image_pull_failed", reference


REFUSALS = {401: "unauthorized|no basic auth", 403: "denied", 404: "manifest unknown", 429: "too many requests"}


@pytest.mark.parametrize(("status", "text"), REFUSALS.items())
async def test_registry_that_refuses_fails_the_pull_though_an_older_image_is_present(
    engine: DockerEngine, shop: Registry, status: int, text: str
) -> None:
    reference = shop.push("web:1", "one")
    await engine.pull(reference)
    shop.refuses = status
    for auth in (None, header("ci", "word", shop.host)):
        with pytest.raises(EngineError, match=f"(?i){text}") as refused:
            await engine.pull(reference, auth)
        assert refused.value.reason == "image_pull_failed"
    shop.refuses = None
    assert (await engine.pull(reference)).not_pulled == "", "a refusal does not silence the registry"


async def test_local_image_is_used_and_the_reason_given_if_the_registry_has_a_failure_of_its_own(
    engine: DockerEngine, shop: Registry
) -> None:
    reference = shop.push("web:1", "one")
    image = await engine.pull(reference)
    shop.refuses = 503
    used = await engine.pull(reference)
    assert used.id == image.id and "503" in used.not_pulled


async def test_local_image_is_used_and_the_reason_given_if_the_registry_is_gone(
    engine: DockerEngine, shop: Registry
) -> None:
    reference = shop.push("web:1", "one")
    image = await engine.pull(reference)
    assert image.not_pulled == ""
    shop.stop()
    used = await engine.pull(reference)
    assert used.id == image.id and "connection refused" in used.not_pulled
    again = await engine.pull(reference)
    assert again.id == image.id and "could not be reached" in again.not_pulled, "it is not asked again for a while"


async def test_image_is_pulled_again_by_its_digest(
    engine: DockerEngine, docker_fixture: DockerFixture, shop: Registry
) -> None:
    image = await engine.pull(shop.push("web:1", "one"))
    assert image.digest is not None and image.digest.startswith(f"{shop.host}/web@sha256:")
    await engine.pull(shop.push("web:1", "two"))
    docker_fixture.client.remove_image(image.digest)
    assert await engine.find_image(image.id) is None
    assert (await engine.pull(image.digest)).id == image.id


async def test_volumes_of_an_image_are_read(engine: DockerEngine, shop: Registry) -> None:
    reference = shop.push("web:1", "one", {"Volumes": {"/data": {}, "/cache": {}}})
    assert (await engine.pull(reference)).volumes == ("/cache", "/data")
