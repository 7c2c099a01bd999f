"""POST /builds and the builds that it makes, with a fake engine that runs the Dockerfile's steps."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from services.builds import manager
from services.builds.images import prune
from tests.support.app_fixture import AppFixture, build, eventually, living

pytestmark = pytest.mark.slow

TAR = {"Content-Type": "application/x-tar"}
HELLO = "FROM scratch\nRUN echo hello\n"
ENDLESS = "FROM scratch\nRUN echo begun\nRUN sleep 600\n"


@pytest.fixture
def app_fixture(tmp_path: Path) -> Iterator[AppFixture]:
    with living(build(tmp_path)) as app_fixture:
        yield app_fixture


def tar(dockerfile: str = HELLO, *, at: str = "Dockerfile", **links: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo(at)
        entry.size = len(dockerfile.encode())
        archive.addfile(entry, io.BytesIO(dockerfile.encode()))
        for name, target in links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    return file.getvalue()


def send(
    app_fixture: AppFixture, body: Any = None, query: str = "service=web&wait=20", headers: dict[str, str] = TAR
) -> Any:
    return app_fixture.client.post(f"/builds?{query}", content=body or tar(), headers=headers)


def uploads(app_fixture: AppFixture) -> list[Path]:
    return list((app_fixture.data / "builds").iterdir())


def test_build_produces_an_image_with_a_unique_tag_and_stores_its_log(app_fixture: AppFixture) -> None:
    first, second = send(app_fixture), send(app_fixture, gzip.compress(tar()), headers={"Content-Type": "application/gzip"})
    assert (first.status_code, first.headers["location"]) == (200, "/builds/1"), first.text
    made = first.json()
    assert re.fullmatch(r"web:\d{8}-\d{6}-[0-9a-f]{4}", made["image"])
    assert (made["status"], made["reason"], made["created_by"]["name"]) == ("succeeded", None, "admin")
    assert made["image_id"] == app_fixture.engine.images[made["image"]].id
    assert second.json()["image"] != made["image"]
    log = app_fixture.client.get("/builds/1/log")
    assert log.headers["content-type"].startswith("text/plain")
    assert log.text.splitlines()[:3] == ["Step 1/2 : FROM scratch", "Step 2/2 : RUN echo hello", "hello"]
    assert [row["id"] for row in app_fixture.client.get("/builds?service=web").json()["items"]] == [2, 1]
    assert app_fixture.client.get("/builds?service=api").json()["items"] == []
    assert app_fixture.client.get("/builds/1?wait=5").json() == made
    assert uploads(app_fixture) == []
    reported = [event["type"] for event in app_fixture.client.get("/audit").json()["items"]]
    assert reported.count("build_requested") == 2
    reported = [event["type"] for event in app_fixture.client.get("/events?service=web").json()["items"]]
    assert reported == 2 * ["build_succeeded", "build_started", "build_requested"]


def test_build_uses_the_dockerfile_target_and_args_of_the_request(app_fixture: AppFixture) -> None:
    query = "service=web&wait=20&dockerfile=sub/../sub/App&target=run&arg=WORD=a%3Db&arg=EMPTY="
    made = send(app_fixture, tar("FROM scratch\nRUN echo $WORD\n", at="./sub/App"), query)
    assert made.status_code == 200, made.text
    assert (made.json()["dockerfile"], made.json()["target"]) == ("sub/../sub/App", "run")
    assert "a=b" in app_fixture.client.get("/builds/1/log").text.splitlines()


def test_failed_build_answers_409_with_the_build_and_keeps_its_log(app_fixture: AppFixture) -> None:
    failed = send(app_fixture, tar("FROM scratch\nRUN echo before\nRUN false\n"))
    assert (failed.status_code, failed.json()["code"]) == (409, "build_failed")
    reported = failed.json()["build"]
    assert (reported["status"], reported["reason"], reported["image_id"]) == ("failed", "build_failed", None)
    assert "returned a non-zero code: 1" in reported["message"]
    assert "before" in app_fixture.client.get("/builds/1/log").text
    assert app_fixture.client.get("/audit?limit=1").json()["items"][0]["type"] == "build_requested"
    assert uploads(app_fixture) == []


def test_base_image_is_pulled_checked_and_pinned(app_fixture: AppFixture) -> None:
    base = app_fixture.engine.add_image("registry.example/base:1").id
    app_fixture.engine.add_image("registry.example/evil:1", on_build=("RUN true", "ADD http://127.0.0.1/ /"))
    made = send(app_fixture, tar("ARG TAG=1\nFROM registry.example/base:$TAG AS one\nFROM one\nRUN echo hello\n"))
    assert made.status_code == 200, made.text
    log = app_fixture.client.get("/builds/1/log").text.splitlines()
    assert log[:3] == [
        "Pulling registry.example/base:1", "Step 1/4 : ARG TAG=1", "Step 2/4 : FROM registry.example/base:1 AS one",
    ]  # fmt: skip
    assert f"FROM {base} AS one" in app_fixture.engine.dockerfiles[made.json()["image"]]
    evil = "registry.example/evil:1"
    refused = send(app_fixture, tar(f"FROM scratch\nFROM {evil}\n"))
    assert (refused.json()["code"], refused.json()["build"]["reason"]) == ("build_failed", "build_failed")
    assert f"{evil} has an ONBUILD trigger" in refused.json()["detail"] and "RUN curl" in refused.json()["detail"]
    assert [about for call, about in app_fixture.engine.calls if call == "build"] == [made.json()["image"]]
    missing = send(app_fixture, tar("FROM registry.example/none:1\n"))
    assert (missing.json()["code"], missing.json()["build"]["reason"]) == ("build_failed", "build_failed")


def test_build_log_stream_resumes_after_the_last_event_id(app_fixture: AppFixture) -> None:
    send(app_fixture)
    stream = {"Accept": "text/event-stream"}
    whole = app_fixture.client.get("/builds/1/log", headers=stream).text
    assert re.findall(r"id: (\d+)", whole) == ["1", "2", "3", "4"]
    assert 'event: end\ndata: {"status": "succeeded"}' in whole
    rest = app_fixture.client.get("/builds/1/log", headers={**stream, "Last-Event-ID": "2"}).text
    assert re.findall(r"id: (\d+)", rest) == ["3", "4"] and '"text": "hello"' in rest
    assert app_fixture.client.get("/builds/1/log", headers={**stream, "Last-Event-ID": "4"}).status_code == 204
    assert app_fixture.client.get("/builds/1/log", headers={**stream, "Last-Event-ID": "x"}).status_code == 422


def test_unfinished_builds_show_their_status_and_fail_as_interrupted_at_a_restart(tmp_path: Path) -> None:
    with living(build(tmp_path)) as app_fixture:
        made = send(app_fixture, tar(ENDLESS), "service=web")
        assert (made.status_code, made.headers["location"]) == (202, "/builds/1")
        assert made.json()["status"] in {"pending", "building"}, "as it stands: the builder may be quicker than the answer"
        waited = send(app_fixture, tar(ENDLESS), "service=web&wait=0.05")
        assert (waited.status_code, waited.json()["code"], waited.headers["retry-after"]) == (504, "wait_timeout", "1")
        assert waited.json()["build"]["id"] == 2
        eventually(lambda: "begun" in app_fixture.client.get("/builds/1/log").text, "the log is live")
        third = send(app_fixture, tar(), "service=web").json()["id"]
        assert app_fixture.client.get(f"/builds/{third}").json()["status"] == "pending", "two at a time"
    (tmp_path / "builds" / "left.upload").write_bytes(b"by a crash")
    with living(build(tmp_path)) as app_fixture:
        rows = app_fixture.client.get("/builds").json()["items"]
        assert [(row["status"], row["reason"]) for row in rows] == [("failed", "interrupted")] * 3
        assert uploads(app_fixture) == []


def test_build_fails_when_it_exceeds_the_build_timeout(tmp_path: Path) -> None:
    with living(build(tmp_path, build_timeout=1)) as app_fixture:
        failed = send(app_fixture, tar(ENDLESS)).json()
        assert (failed["code"], failed["build"]["reason"]) == ("build_failed", "timeout")
        assert "SLUICE_BUILD_TIMEOUT" in failed["build"]["message"]


def test_cancelled_running_and_pending_builds_free_their_slots(app_fixture: AppFixture) -> None:
    ids = [send(app_fixture, tar(ENDLESS), "service=web").json()["id"] for _ in range(3)]
    eventually(lambda: "begun" in app_fixture.client.get("/builds/1/log").text, "the first one runs")
    for id in (ids[0], ids[2]):
        reported = app_fixture.client.post(f"/builds/{id}/cancel")
        assert (reported.status_code, reported.json()["status"], reported.json()["reason"]) == (
            200,
            "failed",
            "cancelled",
        ), reported.text
    assert "begun" in app_fixture.client.get("/builds/1/log").text
    assert app_fixture.client.get("/audit?limit=1").json()["items"][0]["type"] == "build_failed"
    assert send(app_fixture).status_code == 200, "a place was free"
    again = app_fixture.client.post("/builds/1/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "not_in_that_state")
    assert app_fixture.client.post("/builds/99/cancel").json()["code"] == "unknown_build"
    assert (
        app_fixture.client.post("/builds/2/cancel", headers=app_fixture.as_scope("deploy", services=["api"])).status_code
        == 403
    )
    assert app_fixture.client.post("/builds/2/cancel", headers=app_fixture.as_scope("deploy")).status_code == 200
    assert uploads(app_fixture) == []


def test_builds_beyond_the_limit_are_refused_before_their_context_is_read(
    app_fixture: AppFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "MAX_UNFINISHED_BUILDS", 2)
    for _ in range(2):
        assert send(app_fixture, tar(ENDLESS), "service=web").status_code == 202
    refused = send(app_fixture, b"hello")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_builds")
    assert refused.headers["retry-after"] == "10"
    assert app_fixture.client.post("/builds/1/cancel").status_code == 200
    assert send(app_fixture).status_code == 200


def test_idempotency_key_returns_the_same_build(app_fixture: AppFixture) -> None:
    key = {**TAR, "Idempotency-Key": "run 7"}
    assert [send(app_fixture, headers=key).json()["id"] for _ in range(2)] == [1, 1]
    other = send(app_fixture, tar("FROM scratch\n"), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert uploads(app_fixture) == []


REFUSED: list[tuple[Callable[[], Any], str, dict[str, str], int, str]] = [
    (lambda: b"hello", "service=web", TAR, 422, "invalid_context"),
    (lambda: tar()[:600], "service=web", TAR, 422, "invalid_context"),
    (lambda: tar(at="../Dockerfile"), "service=web", TAR, 422, "invalid_context"),
    (lambda: tar(passwd="/etc/passwd"), "service=web", TAR, 422, "invalid_context"),
    (lambda: tar(at="Other"), "service=web", TAR, 422, "invalid_context"),
    (lambda: tar("FROM scratch\nADD http://127.0.0.1/ /\n"), "service=web", TAR, 422, "invalid_context"),
    (lambda: tar("ARG A\nFROM $A\n"), "service=web", TAR, 422, "invalid_context"),
    (lambda: bytes(200_000), "service=web", TAR, 413, "too_large"),
    (lambda: iter([tar(), *[bytes(1000)] * 200]), "service=web", TAR, 413, "too_large"),
    (lambda: tar(), "service=web", {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
    (lambda: tar(), "service=Web", TAR, 422, "invalid"),
    (lambda: tar(), "", TAR, 422, "invalid"),
    (lambda: tar(), "service=web&dockerfile=../x", TAR, 422, "invalid"),
    (lambda: tar(), "service=web&arg=novalue", TAR, 422, "invalid"),
    (lambda: tar(), "service=web&args=A=b", TAR, 422, "invalid"),
]


@pytest.mark.parametrize(("body", "query", "headers", "status", "code"), REFUSED)
def test_invalid_build_request_is_refused_and_leaves_no_upload(
    tmp_path: Path, body: Callable[[], Any], query: str, headers: dict[str, str], status: int, code: str
) -> None:
    with living(build(tmp_path, build_context_size=100_000)) as app_fixture:
        refused = send(app_fixture, body(), query, headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
        assert app_fixture.client.get("/builds").json()["items"] == []
        assert uploads(app_fixture) == []
        assert app_fixture.client.get("/audit?limit=1").json()["items"][0]["type"] == "refused"
        assert send(app_fixture).status_code == 200, "nothing else is disturbed"


def test_aborted_upload_leaves_nothing(app_fixture: AppFixture) -> None:
    said: list[Message] = [{"type": "http.request", "body": tar()[:100], "more_body": True}, {"type": "http.disconnect"}]
    answers: list[Message] = []
    headers = {"host": "sluice.test", "content-type": "application/x-tar", "authorization": f"Bearer {app_fixture.token}"}

    async def receive() -> Message:
        return said.pop(0) if len(said) > 1 else said[0]

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/builds", "raw_path": b"/builds", "query_string": b"service=web", "root_path": "",
        "client": ("192.0.2.1", 1), "server": ("sluice.test", 80), "state": {}, "app": app_fixture.app,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    app_fixture.call(app_fixture.app, scope, receive, send)
    assert answers[0]["status"] == 400
    assert uploads(app_fixture) == [] and app_fixture.client.get("/builds").json()["items"] == []


def test_deploy_scope_builds_only_for_existing_services_that_its_token_covers(app_fixture: AppFixture) -> None:
    app_fixture.deploy("web")
    deployer, other = app_fixture.as_scope("deploy"), app_fixture.as_scope("write", services=["api"])
    assert send(app_fixture, headers={**TAR, **deployer}).status_code == 200
    assert send(app_fixture, query="service=new", headers={**TAR, **deployer}).status_code == 403
    assert send(app_fixture, headers={**TAR, **other}).status_code == 403
    assert app_fixture.client.get("/builds/99").json()["code"] == "unknown_build"


def test_latest_tag_moves_only_after_a_successful_deployment_of_the_image(app_fixture: AppFixture) -> None:
    def latest() -> str | None:
        found = app_fixture.engine.images.get("web:latest")
        return found.id if found is not None else None

    one, two = send(app_fixture).json(), send(app_fixture).json()
    assert latest() is None
    assert app_fixture.deploy("web", one["image"]).status_code == 200
    eventually(lambda: latest() == one["image_id"], "latest follows the first one")
    broken = app_fixture.deploy("web", two["image"], healthcheck={"test": ["CMD", "false"], "disable": None}, wait="")
    app_fixture.client.post(f"/deployments/{broken.json()['id']}/abort")
    assert app_fixture.client.get(f"/deployments/{broken.json()['id']}?wait=20").json()["status"] == "aborted"
    assert latest() == one["image_id"]
    assert app_fixture.deploy("web", two["image"]).status_code == 200
    eventually(lambda: latest() == two["image_id"], "latest follows the second one")
    assert app_fixture.client.post("/services/web/rollback?wait=20", json={"to_revision": 1}).status_code == 200
    eventually(lambda: latest() == one["image_id"], "latest goes back with it")


def test_unknown_latest_tag_is_left_alone_and_reported_once(tmp_path: Path) -> None:
    def reports(app_fixture: AppFixture) -> list[str]:
        events = app_fixture.client.get("/events?service=web").json()["items"]
        return [event["data"]["image_id"] for event in events if event["type"] == "latest_left_alone"]

    def latest(app_fixture: AppFixture) -> str | None:
        image = app_fixture.engine.images.get("web:latest")
        return image.id if image is not None else None

    with living(build(tmp_path)) as app_fixture:
        theirs = app_fixture.engine.add_image("web:latest", pulled=False).id
        assert app_fixture.deploy("web", send(app_fixture).json()["image"]).status_code == 200
        eventually(lambda: reports(app_fixture) == [theirs], "it is reported")
        other = send(app_fixture, query="service=other&wait=20").json()
        app_fixture.engine.images["web:latest"] = app_fixture.engine.images[other["image"]]
        # Each deployment has an image of its own, which the tagging task has not handled yet, however late that task is.
        assert app_fixture.deploy("web", send(app_fixture).json()["image"]).status_code == 200
        eventually(
            lambda: reports(app_fixture) == [other["image_id"], theirs], "an image of another service is no latest of it"
        )
        assert app_fixture.engine.images["web:latest"].id == other["image_id"]
        assert [about for call, about in app_fixture.engine.calls if call == "tag"] == []
        del app_fixture.engine.images["web:latest"]
        third = send(app_fixture).json()
        assert app_fixture.deploy("web", third["image"]).status_code == 200
        eventually(lambda: latest(app_fixture) == third["image_id"], "the name is free")


def test_prune_removes_built_images_beyond_the_history_limit_only(app_fixture: AppFixture) -> None:
    app_fixture.image("web:theirs")
    assert app_fixture.deploy("web", "web:theirs", revision_history_limit=2).status_code == 200
    made = [send(app_fixture).json()["image"] for _ in range(4)]
    for image in made[:2]:
        assert app_fixture.deploy("web", image).status_code == 200
    eventually(lambda: "web:latest" in app_fixture.engine.images, "the second one is the latest")
    unwanted = send(app_fixture, query="service=never&wait=20").json()["image"]
    app_fixture.call(prune, app_fixture.sluice.store, app_fixture.engine)
    assert {*made, unwanted, "web:theirs"} <= app_fixture.engine.images.keys()
    made.append(send(app_fixture).json()["image"])
    for image in made[3:]:
        assert app_fixture.deploy("web", image).status_code == 200
    app_fixture.call(prune, app_fixture.sluice.store, app_fixture.engine)
    retained = {image for image in app_fixture.engine.images if re.fullmatch(r"web:\d.*", image)}
    assert retained == set(made[3:]) and {unwanted, "web:theirs"} <= app_fixture.engine.images.keys()
