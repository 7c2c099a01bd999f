"""From a Dockerfile to what runs, by the engine's own builder."""

from __future__ import annotations

import secrets

import pytest

from tests.app.test_builds import TAR, tar
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


async def test_what_was_built_is_deployed_and_becomes_the_latest(stage: Stage) -> None:
    word = secrets.token_hex(4)
    steps = f"FROM debian:trixie-slim\nARG WORD\nRUN echo $WORD-{word} > /word\nRUN cat /word\n"
    dockerfile = f'{steps}STOPSIGNAL SIGKILL\nCMD ["sh", "-c", "cat /word; sleep infinity"]\n'
    asked = {"service": stage.service, "wait": "60", "arg": "WORD=hello"}
    answer = await stage.http.post("/builds", params=asked, content=tar(dockerfile), headers=TAR)
    built = answer.json()
    assert answer.status_code == 200, answer.text
    log = (await stage.http.get(built["links"]["log"])).text
    assert f"hello-{word}" in log.splitlines()
    latest = f"{stage.service}:latest"
    try:
        assert await stage.docker("images", "--quiet", latest) == ""
        await stage.deploy({"service": stage.service, "image": built["image"]})
        (container,) = await stage.containers()
        assert container["Image"] == built["image_id"]
        assert await stage.docker("logs", container["Id"]) == f"hello-{word}"
        await stage.until(lambda: stage.docker("images", "--quiet", latest))
        assert (await stage.docker("inspect", "--format", "{{.Id}}", latest)).strip() == built["image_id"]
        failed = await stage.http.post("/builds", params=asked, content=tar(f"{steps}RUN exit 7\n"), headers=TAR)
        assert (failed.status_code, failed.json()["code"]) == (409, "build_failed")
        assert "returned a non-zero code: 7" in failed.json()["detail"]
        await stage.remove()
    finally:
        await stage.docker("rmi", "--force", built["image"], latest)
