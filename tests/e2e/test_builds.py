"""Builds by the engine's own builder, from the Dockerfile to the running instance."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.engine.docker.engine import DockerEngine
from services.engine.port import BuildSpec
from tests.app.api.test_builds import TAR, tar
from tests.support.service_fixture import ServiceFixture

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


class Loopback(ThreadingHTTPServer):
    """A server on the host's loopback; `asked` lists the requested paths."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"the host's own")

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - an override

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with Loopback() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


BASE = "FROM debian:trixie-slim\n"
READS = {
    "literal": "ADD {url}/secret /secret\n",
    "variable": "ARG URL={url}/secret\nADD $URL /secret\n",
    "part": "ENV H=h\nADD ${{H}}ttp{rest}/secret /secret\n",
    "continued": "add \\\n  # a comment\n  {url}/secret /secret\n",
    "JSON": 'ADD ["\\u0068ttp{rest}/secret", "/secret"] and more\n',
}


@pytest.mark.parametrize("step", READS.values(), ids=READS)
async def test_build_cannot_read_the_hosts_loopback(service_fixture: ServiceFixture, loopback: Loopback, step: str) -> None:
    dockerfile = BASE + step.format(url=loopback.url, rest=loopback.url.removeprefix("http"))
    refused = await service_fixture.http.post(
        "/builds", params={"service": service_fixture.service}, content=tar(dockerfile), headers=TAR
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_context"), refused.text
    assert "line" in refused.json()["detail"] and loopback.asked == []
    image = f"{service_fixture.service}:direct"
    engine = DockerEngine(service_fixture.service, "bridge", service_fixture.images.gateway)
    try:
        async for _ in engine.build(BuildSpec(service_fixture.service, image, [tar(dockerfile)])):
            pass
        assert loopback.asked == ["/secret"], "the engine itself would have fetched it"
    finally:
        engine.close()
        await service_fixture.docker("rmi", "--force", image)


async def test_base_image_cannot_make_a_build_read_the_hosts_loopback(
    service_fixture: ServiceFixture, loopback: Loopback
) -> None:
    base, container = f"{service_fixture.service}-base:1", f"{service_fixture.service}-base"
    await service_fixture.docker("create", "--name", container, "debian:trixie-slim")
    try:
        await service_fixture.docker("commit", "--change", f"ONBUILD ADD {loopback.url}/secret /secret", container, base)
        asked = {"service": service_fixture.service, "wait": "60", "arg": f"BASE={base}"}
        dockerfile = "ARG BASE\nFROM $BASE AS one\nFROM one\nRUN true\n"
        refused = await service_fixture.http.post("/builds", params=asked, content=tar(dockerfile), headers=TAR)
        assert (refused.status_code, refused.json()["build"]["reason"]) == (409, "build_failed"), refused.text
        assert base in refused.json()["detail"] and "ONBUILD" in refused.json()["detail"]
        assert loopback.asked == []
    finally:
        await service_fixture.docker("rm", container)
        await service_fixture.docker("rmi", "--force", base)


async def test_built_image_is_deployed_and_tagged_latest(service_fixture: ServiceFixture) -> None:
    word = secrets.token_hex(4)
    steps = f"FROM debian:trixie-slim\nARG WORD\nRUN echo $WORD-{word} > /word\nRUN cat /word\n"
    steps += "LABEL sluice.service=victim sluice.built=victim:1\n"
    dockerfile = f'{steps}STOPSIGNAL SIGKILL\nCMD ["sh", "-c", "cat /word; sleep infinity"]\n'
    asked = {"service": service_fixture.service, "wait": "60", "arg": "WORD=hello"}
    answer = await service_fixture.http.post("/builds", params=asked, content=tar(dockerfile), headers=TAR)
    built = answer.json()
    assert answer.status_code == 200, answer.text
    log = (await service_fixture.http.get(built["links"]["log"])).text
    assert f"hello-{word}" in log.splitlines()
    latest = f"{service_fixture.service}:latest"
    try:
        assert await service_fixture.docker("images", "--quiet", latest) == ""
        labels = (await service_fixture.docker("inspect", "--format", "{{json .Config.Labels}}", built["image"])).strip()
        ours = {
            "sluice.name": service_fixture.sluice.name,
            "sluice.service": service_fixture.service,
            "sluice.built": built["image"],
        }
        assert ours.items() <= json.loads(labels).items(), "those of a Dockerfile do not count"
        assert "FROM debian:trixie-slim" in log and "FROM sha256:" not in log
        await service_fixture.deploy({"service": service_fixture.service, "image": built["image"]})
        (container,) = await service_fixture.containers()
        assert container["Image"] == built["image_id"]
        assert await service_fixture.docker("logs", container["Id"]) == f"hello-{word}"
        await service_fixture.until(lambda: service_fixture.docker("images", "--quiet", latest))
        assert (await service_fixture.docker("inspect", "--format", "{{.Id}}", latest)).strip() == built["image_id"]
        failed = await service_fixture.http.post("/builds", params=asked, content=tar(f"{steps}RUN exit 7\n"), headers=TAR)
        assert (failed.status_code, failed.json()["code"]) == (409, "build_failed")
        assert "returned a non-zero code: 7" in failed.json()["detail"]
        await service_fixture.remove()
    finally:
        await service_fixture.docker("rmi", "--force", built["image"], latest)


async def test_foreign_latest_tag_with_forged_labels_is_left_alone(service_fixture: ServiceFixture) -> None:
    latest, container = f"{service_fixture.service}:latest", f"{service_fixture.service}-forged"
    await service_fixture.docker("create", "--name", container, "debian:trixie-slim")
    built = ""
    try:
        forged = (
            f"LABEL sluice.name={service_fixture.sluice.name} sluice.service={service_fixture.service} sluice.built={latest}"
        )
        await service_fixture.docker("commit", "--change", forged, container, latest)
        theirs = await service_fixture.docker("inspect", "--format", "{{.Id}}", latest)
        dockerfile = f'{BASE}STOPSIGNAL SIGKILL\nCMD ["sleep", "infinity"]\n'
        asked = {"service": service_fixture.service, "wait": "60"}
        built = (await service_fixture.http.post("/builds", params=asked, content=tar(dockerfile), headers=TAR)).json()[
            "image"
        ]
        await service_fixture.deploy({"service": service_fixture.service, "image": built})

        async def reported() -> bool:
            events = await service_fixture.get("/events", service=service_fixture.service)
            return "latest_left_alone" in {event["type"] for event in events["items"]}

        await service_fixture.until(reported)
        assert await service_fixture.docker("inspect", "--format", "{{.Id}}", latest) == theirs
        await service_fixture.remove()
    finally:
        await service_fixture.docker("rm", container)
        await service_fixture.docker("rmi", "--force", latest, *[built][: bool(built)])
