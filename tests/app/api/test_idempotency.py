"""Calls that repeat an Idempotency-Key get the answer of the first one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from httpx2 import Response
from sqlmodel import select

from services.idempotency import KEY_LIFETIME, delete_expired_keys
from services.store.tables import IdempotencyKey
from tests.support.app_fixture import NEVER, READY, AppFixture, build, eventually, living

KEY = {"Idempotency-Key": "run 4711"}
BODY = {"service": "web", "image": "web:1", "healthcheck": READY}


def test_idempotency_key_returns_the_same_deployment_and_waits_for_it_again(app_fixture: AppFixture) -> None:
    app_fixture.image("web:1")
    first = app_fixture.client.post("/deployments", json=BODY, headers=KEY)
    again = app_fixture.client.post("/deployments?wait=20", json=BODY, headers=KEY)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"] == 1
    assert again.json()["status"] == "succeeded"
    assert app_fixture.count("/deployments") == 1


def test_idempotency_key_survives_a_restart(tmp_path: Path) -> None:
    with living(build(tmp_path)) as app_fixture:
        app_fixture.image("web:1")
        app_fixture.client.post("/deployments?wait=20", json=BODY, headers=KEY)
    with living(build(tmp_path)) as app_fixture:
        answer = app_fixture.client.post("/deployments?wait=20", json=BODY, headers=KEY)
        assert answer.json()["id"] == 1
        assert app_fixture.count("/deployments") == 1


def test_idempotency_key_is_refused_for_another_body_path_or_method(app_fixture: AppFixture) -> None:
    app_fixture.image("web:1")
    app_fixture.client.post("/deployments?wait=20", json=BODY, headers=KEY)
    for path, body in [
        ("/deployments", {**BODY, "replicas": 2}),
        ("/services/web/scale", {"replicas": 2}),
        ("/services/web/restart", {}),
        ("/deployments/1/pause", {}),
        ("/deployments/1/retry", {}),
        ("/tokens", {"name": "ci", "scope": "read"}),
    ]:
        answer = app_fixture.client.post(path, json=body, headers=KEY)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused"), path
    assert app_fixture.count("/deployments") == 1
    assert app_fixture.count("/tokens") == 1


def test_idempotency_keys_of_two_tokens_are_independent(app_fixture: AppFixture) -> None:
    app_fixture.image("web:1")
    app_fixture.client.post("/deployments?wait=20", json=BODY, headers=KEY)
    other = app_fixture.client.post("/deployments?wait=20", json=BODY, headers=KEY | app_fixture.as_scope("write"))
    assert other.json()["id"] == 2


def test_idempotency_key_makes_a_token_once_and_shows_it_once(app_fixture: AppFixture) -> None:
    first = app_fixture.client.post("/tokens", json={"name": "ci", "scope": "read"}, headers=KEY)
    again = app_fixture.client.post("/tokens", json={"name": "ci", "scope": "read"}, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == {**first.json(), "token": None}
    assert app_fixture.count("/tokens") == 2
    assert first.json()["token"].encode() not in b"".join(path.read_bytes() for path in app_fixture.data.glob("sluice.db*"))


def test_idempotency_key_runs_an_action_once(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    app_fixture.image("web:2")
    id = app_fixture.deploy(image="web:2", wait="", healthcheck=NEVER).json()["id"]
    eventually(lambda: app_fixture.client.get(f"/deployments/{id}").json()["status"] == "progressing", "it is under way")
    answers = [app_fixture.client.post(f"/deployments/{id}/pause", headers=KEY) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].json()["status"] == "paused"


def _at_once(number: int, request: Callable[[], Response]) -> list[Response]:
    with ThreadPoolExecutor(number) as threads:
        return [call.result() for call in [threads.submit(request) for _ in range(number)]]


def test_concurrent_requests_with_one_key_make_one_token(app_fixture: AppFixture) -> None:
    body = {"name": "ci", "scope": "read"}
    answers = _at_once(6, lambda: app_fixture.client.post("/tokens", json=body, headers=KEY))
    assert [answer.status_code for answer in answers] == [201] * 6
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len([answer for answer in answers if answer.json()["token"]]) == 1
    assert app_fixture.count("/tokens") == 2


def test_concurrent_requests_with_one_key_make_one_deployment(app_fixture: AppFixture) -> None:
    app_fixture.image("web:1")
    answers = _at_once(6, lambda: app_fixture.client.post("/deployments", json=BODY, headers=KEY))
    assert {(answer.status_code, answer.json()["id"]) for answer in answers} == {(202, 1)}
    assert app_fixture.count("/deployments") == 1


def test_concurrent_requests_with_one_key_run_an_action_once(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    app_fixture.image("web:2")
    id = app_fixture.deploy(image="web:2", wait="", healthcheck=NEVER).json()["id"]
    eventually(lambda: app_fixture.client.get(f"/deployments/{id}").json()["status"] == "progressing", "it is under way")
    answers = _at_once(6, lambda: app_fixture.client.post(f"/deployments/{id}/pause", headers=KEY))
    assert [answer.status_code for answer in answers] == [200] * 6


def test_idempotency_keys_expire_after_a_day(app_fixture: AppFixture) -> None:
    app_fixture.image("web:1")
    app_fixture.client.post("/deployments?wait=20", json=BODY, headers=KEY)
    store, now = app_fixture.sluice.store, app_fixture.sluice.clock.now()
    with store.write_session() as session:
        delete_expired_keys(session, now + KEY_LIFETIME - 60)
        assert session.exec(select(IdempotencyKey)).one()
        delete_expired_keys(session, now + KEY_LIFETIME + 60)
        assert session.exec(select(IdempotencyKey)).first() is None


def test_idempotency_key_of_invalid_length_is_refused(app_fixture: AppFixture) -> None:
    for key in ("", "k" * 256):
        answer = app_fixture.client.post("/deployments", json=BODY, headers={"Idempotency-Key": key})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "Idempotency-Key"
