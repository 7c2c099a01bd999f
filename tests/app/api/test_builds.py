"""POST /builds and what comes of it, with an engine that does what the Dockerfile says."""

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
from tests.support.app_fixture import House, build, eventually, living

pytestmark = pytest.mark.slow

TAR = {"Content-Type": "application/x-tar"}
HELLO = "FROM scratch\nRUN echo hello\n"
ENDLESS = "FROM scratch\nRUN echo begun\nRUN sleep 600\n"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with living(build(tmp_path)) as house:
        yield house


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


def send(house: House, body: Any = None, query: str = "service=web&wait=20", headers: dict[str, str] = TAR) -> Any:
    return house.client.post(f"/builds?{query}", content=body or tar(), headers=headers)


def uploads(house: House) -> list[Path]:
    return list((house.data / "builds").iterdir())


def test_an_image_is_built_under_a_tag_of_its_own_and_its_log_is_kept(house: House) -> None:
    first, second = send(house), send(house, gzip.compress(tar()), headers={"Content-Type": "application/gzip"})
    assert (first.status_code, first.headers["location"]) == (200, "/builds/1"), first.text
    made = first.json()
    assert re.fullmatch(r"web:\d{8}-\d{6}-[0-9a-f]{4}", made["image"])
    assert (made["status"], made["reason"], made["created_by"]["name"]) == ("succeeded", None, "admin")
    assert made["image_id"] == house.engine.images[made["image"]].id
    assert second.json()["image"] != made["image"]
    log = house.client.get("/builds/1/log")
    assert log.headers["content-type"].startswith("text/plain")
    assert log.text.splitlines()[:3] == ["Step 1/2 : FROM scratch", "Step 2/2 : RUN echo hello", "hello"]
    assert [row["id"] for row in house.client.get("/builds?service=web").json()["items"]] == [2, 1]
    assert house.client.get("/builds?service=api").json()["items"] == []
    assert house.client.get("/builds/1?wait=5").json() == made
    assert uploads(house) == []
    told = [event["type"] for event in house.client.get("/audit").json()["items"]]
    assert told.count("build_requested") == 2
    told = [event["type"] for event in house.client.get("/events?service=web").json()["items"]]
    assert told == 2 * ["build_succeeded", "build_started", "build_requested"]


def test_dockerfile_target_and_args_are_the_callers(house: House) -> None:
    query = "service=web&wait=20&dockerfile=sub/../sub/App&target=run&arg=WORD=a%3Db&arg=EMPTY="
    made = send(house, tar("FROM scratch\nRUN echo $WORD\n", at="./sub/App"), query)
    assert made.status_code == 200, made.text
    assert (made.json()["dockerfile"], made.json()["target"]) == ("sub/../sub/App", "run")
    assert "a=b" in house.client.get("/builds/1/log").text.splitlines()


def test_a_build_that_fails_is_a_409_with_the_build_and_its_log(house: House) -> None:
    failed = send(house, tar("FROM scratch\nRUN echo before\nRUN false\n"))
    assert (failed.status_code, failed.json()["code"]) == (409, "build_failed")
    told = failed.json()["build"]
    assert (told["status"], told["reason"], told["image_id"]) == ("failed", "build_failed", None)
    assert "returned a non-zero code: 1" in told["message"]
    assert "before" in house.client.get("/builds/1/log").text
    assert house.client.get("/audit?limit=1").json()["items"][0]["type"] == "build_requested"
    assert uploads(house) == []


def test_a_base_image_is_pulled_checked_and_pinned(house: House) -> None:
    base = house.engine.add_image("registry.example/base:1").id
    house.engine.add_image("registry.example/evil:1", on_build=("RUN true", "ADD http://127.0.0.1/ /"))
    made = send(house, tar("ARG TAG=1\nFROM registry.example/base:$TAG AS one\nFROM one\nRUN echo hello\n"))
    assert made.status_code == 200, made.text
    log = house.client.get("/builds/1/log").text.splitlines()
    assert log[:3] == [
        "Pulling registry.example/base:1", "Step 1/4 : ARG TAG=1", "Step 2/4 : FROM registry.example/base:1 AS one",
    ]  # fmt: skip
    assert f"FROM {base} AS one" in house.engine.dockerfiles[made.json()["image"]]
    evil = "registry.example/evil:1"
    refused = send(house, tar(f"FROM scratch\nFROM {evil}\n"))
    assert (refused.json()["code"], refused.json()["build"]["reason"]) == ("build_failed", "build_failed")
    assert f"{evil} has an ONBUILD trigger" in refused.json()["detail"] and "RUN curl" in refused.json()["detail"]
    assert [about for call, about in house.engine.calls if call == "build"] == [made.json()["image"]]
    missing = send(house, tar("FROM registry.example/none:1\n"))
    assert (missing.json()["code"], missing.json()["build"]["reason"]) == ("build_failed", "build_failed")


def test_a_build_is_followed_line_by_line_and_taken_up_again(house: House) -> None:
    send(house)
    stream = {"Accept": "text/event-stream"}
    whole = house.client.get("/builds/1/log", headers=stream).text
    assert re.findall(r"id: (\d+)", whole) == ["1", "2", "3", "4"]
    assert 'event: end\ndata: {"status": "succeeded"}' in whole
    rest = house.client.get("/builds/1/log", headers={**stream, "Last-Event-ID": "2"}).text
    assert re.findall(r"id: (\d+)", rest) == ["3", "4"] and '"text": "hello"' in rest
    assert house.client.get("/builds/1/log", headers={**stream, "Last-Event-ID": "4"}).status_code == 204
    assert house.client.get("/builds/1/log", headers={**stream, "Last-Event-ID": "x"}).status_code == 422


def test_what_is_not_over_is_told_as_it_stands_and_a_restart_says_that_it_was_interrupted(tmp_path: Path) -> None:
    with living(build(tmp_path)) as house:
        made = send(house, tar(ENDLESS), "service=web")
        assert (made.status_code, made.headers["location"]) == (202, "/builds/1")
        assert made.json()["status"] in {"pending", "building"}, "as it stands: the builder may be quicker than the answer"
        waited = send(house, tar(ENDLESS), "service=web&wait=0.05")
        assert (waited.status_code, waited.json()["code"], waited.headers["retry-after"]) == (504, "wait_timeout", "1")
        assert waited.json()["build"]["id"] == 2
        eventually(lambda: "begun" in house.client.get("/builds/1/log").text, "the log is live")
        third = send(house, tar(), "service=web").json()["id"]
        assert house.client.get(f"/builds/{third}").json()["status"] == "pending", "two at a time"
    (tmp_path / "builds" / "left.upload").write_bytes(b"by a crash")
    with living(build(tmp_path)) as house:
        rows = house.client.get("/builds").json()["items"]
        assert [(row["status"], row["reason"]) for row in rows] == [("failed", "interrupted")] * 3
        assert uploads(house) == []


def test_a_build_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with living(build(tmp_path, build_timeout=1)) as house:
        failed = send(house, tar(ENDLESS)).json()
        assert (failed["code"], failed["build"]["reason"]) == ("build_failed", "timeout")
        assert "SLUICE_BUILD_TIMEOUT" in failed["build"]["message"]


def test_a_build_that_runs_and_one_that_waits_are_cancelled_and_their_places_are_free(house: House) -> None:
    ids = [send(house, tar(ENDLESS), "service=web").json()["id"] for _ in range(3)]
    eventually(lambda: "begun" in house.client.get("/builds/1/log").text, "the first one runs")
    for id in (ids[0], ids[2]):
        told = house.client.post(f"/builds/{id}/cancel")
        assert (told.status_code, told.json()["status"], told.json()["reason"]) == (200, "failed", "cancelled"), told.text
    assert "begun" in house.client.get("/builds/1/log").text
    assert house.client.get("/audit?limit=1").json()["items"][0]["type"] == "build_failed"
    assert send(house).status_code == 200, "a place was free"
    again = house.client.post("/builds/1/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "not_in_that_state")
    assert house.client.post("/builds/99/cancel").json()["code"] == "unknown_build"
    assert house.client.post("/builds/2/cancel", headers=house.as_scope("deploy", services=["api"])).status_code == 403
    assert house.client.post("/builds/2/cancel", headers=house.as_scope("deploy")).status_code == 200
    assert uploads(house) == []


def test_so_many_builds_wait_and_no_more_whose_contexts_are_not_even_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "MOST", 2)
    for _ in range(2):
        assert send(house, tar(ENDLESS), "service=web").status_code == 202
    refused = send(house, b"hello")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_builds")
    assert refused.headers["retry-after"] == "10"
    assert house.client.post("/builds/1/cancel").status_code == 200
    assert send(house).status_code == 200


def test_the_same_key_is_the_same_build(house: House) -> None:
    key = {**TAR, "Idempotency-Key": "run 7"}
    assert [send(house, headers=key).json()["id"] for _ in range(2)] == [1, 1]
    other = send(house, tar("FROM scratch\n"), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert uploads(house) == []


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
def test_what_cannot_be_built_is_refused_and_leaves_nothing(
    tmp_path: Path, body: Callable[[], Any], query: str, headers: dict[str, str], status: int, code: str
) -> None:
    with living(build(tmp_path, build_context_size=100_000)) as house:
        refused = send(house, body(), query, headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code), refused.text
        assert house.client.get("/builds").json()["items"] == []
        assert uploads(house) == []
        assert house.client.get("/audit?limit=1").json()["items"][0]["type"] == "refused"
        assert send(house).status_code == 200, "nothing else is disturbed"


def test_an_upload_that_breaks_off_leaves_nothing(house: House) -> None:
    said: list[Message] = [{"type": "http.request", "body": tar()[:100], "more_body": True}, {"type": "http.disconnect"}]
    answers: list[Message] = []
    headers = {"host": "sluice.test", "content-type": "application/x-tar", "authorization": f"Bearer {house.token}"}

    async def receive() -> Message:
        return said.pop(0) if len(said) > 1 else said[0]

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/builds", "raw_path": b"/builds", "query_string": b"service=web", "root_path": "",
        "client": ("192.0.2.1", 1), "server": ("sluice.test", 80), "state": {}, "app": house.app,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    house.call(house.app, scope, receive, send)
    assert answers[0]["status"] == 400
    assert uploads(house) == [] and house.client.get("/builds").json()["items"] == []


def test_deploy_may_build_for_what_exists_and_for_its_own_services_alone(house: House) -> None:
    house.deploy("web")
    deployer, other = house.as_scope("deploy"), house.as_scope("write", services=["api"])
    assert send(house, headers={**TAR, **deployer}).status_code == 200
    assert send(house, query="service=new", headers={**TAR, **deployer}).status_code == 403
    assert send(house, headers={**TAR, **other}).status_code == 403
    assert house.client.get("/builds/99").json()["code"] == "unknown_build"


def test_latest_moves_only_when_a_deployment_of_the_image_has_succeeded(house: House) -> None:
    def latest() -> str | None:
        found = house.engine.images.get("web:latest")
        return found.id if found is not None else None

    one, two = send(house).json(), send(house).json()
    assert latest() is None
    assert house.deploy("web", one["image"]).status_code == 200
    eventually(lambda: latest() == one["image_id"], "latest follows the first one")
    broken = house.deploy("web", two["image"], healthcheck={"test": ["CMD", "false"], "disable": None}, wait="")
    house.client.post(f"/deployments/{broken.json()['id']}/abort")
    assert house.client.get(f"/deployments/{broken.json()['id']}?wait=20").json()["status"] == "aborted"
    assert latest() == one["image_id"]
    assert house.deploy("web", two["image"]).status_code == 200
    eventually(lambda: latest() == two["image_id"], "latest follows the second one")
    assert house.client.post("/services/web/rollback?wait=20", json={"to_revision": 1}).status_code == 200
    eventually(lambda: latest() == one["image_id"], "latest goes back with it")


def test_a_latest_that_sluice_did_not_set_for_the_service_is_left_alone_and_reported_once(tmp_path: Path) -> None:
    def reports(house: House) -> list[str]:
        events = house.client.get("/events?service=web").json()["items"]
        return [event["data"]["image_id"] for event in events if event["type"] == "latest_left_alone"]

    with living(build(tmp_path)) as house:
        theirs = house.engine.add_image("web:latest", pulled=False).id
        assert house.deploy("web", send(house).json()["image"]).status_code == 200
        eventually(lambda: reports(house) == [theirs], "it is reported")
        second = send(house).json()
        assert house.deploy("web", second["image"]).status_code == 200
        other = send(house, query="service=other&wait=20").json()
        house.engine.images["web:latest"] = house.engine.images[other["image"]]
        assert house.client.post("/services/web/rollback?wait=20", json={"to_revision": 1}).status_code == 200
        eventually(lambda: reports(house) == [other["image_id"], theirs], "an image of another service is no latest of it")
        assert house.engine.images["web:latest"].id == other["image_id"]
        assert [about for call, about in house.engine.calls if call == "tag"] == []
        del house.engine.images["web:latest"]
        assert house.deploy("web", second["image"]).status_code == 200
        eventually(lambda: "web:latest" in house.engine.images, "the name is free")
        assert house.engine.images["web:latest"].id == second["image_id"]


def test_images_beyond_the_history_limit_go_and_those_of_others_stay(house: House) -> None:
    house.image("web:theirs")
    assert house.deploy("web", "web:theirs", revision_history_limit=2).status_code == 200
    made = [send(house).json()["image"] for _ in range(4)]
    for image in made[:2]:
        assert house.deploy("web", image).status_code == 200
    eventually(lambda: "web:latest" in house.engine.images, "the second one is the latest")
    unwanted = send(house, query="service=never&wait=20").json()["image"]
    house.call(prune, house.sluice.store, house.engine)
    assert {*made, unwanted, "web:theirs"} <= house.engine.images.keys()
    made.append(send(house).json()["image"])
    for image in made[3:]:
        assert house.deploy("web", image).status_code == 200
    house.call(prune, house.sluice.store, house.engine)
    kept = {image for image in house.engine.images if re.fullmatch(r"web:\d.*", image)}
    assert kept == set(made[3:]) and {unwanted, "web:theirs"} <= house.engine.images.keys()
