"""Deployments as CI requests them: accepted, waited for, and answered with their result."""

from __future__ import annotations

from typing import Any

import pytest

from services.engine.port import EngineError
from tests.support.app_fixture import NEVER, READY, AppFixture, eventually
from tests.support.fakes.engine import Behaviour

AT_ONCE = Behaviour(exits_at_once=3, log="no configuration\n")


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return dict(answer.json())


def test_deployment_is_accepted_at_once_with_its_location(app_fixture: AppFixture) -> None:
    answer = app_fixture.deploy(wait="", note="3f2a9c1", replicas=2)
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == made["links"]["self"] == f"/deployments/{made['id']}"
    assert (made["service"], made["kind"], made["note"], made["image"]) == ("web", "deploy", "3f2a9c1", "web:1")
    assert made["created_by"] == {"kind": "token", "name": "admin"}
    ended = app_fixture.client.get(f"/deployments/{made['id']}?wait=20").json()
    assert (ended["status"], ended["revision"], ended["actions"]) == ("succeeded", 1, [])
    assert [one["status"] for one in ended["instances"]] == ["serving", "serving"]
    assert ended["progress"]["serving"] == 2


def test_held_answer_is_200_when_the_deployment_succeeded(app_fixture: AppFixture) -> None:
    answer = app_fixture.deploy(wait="30")
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    assert answer.headers["location"] == "/deployments/1"
    again = app_fixture.deploy(wait="1m")
    assert (again.status_code, again.json()["reason"]) == (200, "unchanged")


def test_failed_first_deployment_answers_409_with_the_deployment(app_fixture: AppFixture) -> None:
    app_fixture.engine.behave("web", AT_ONCE)
    reported = problem(app_fixture.deploy(replicas=1), 409, "deployment_failed")
    assert (reported["deployment"]["status"], reported["deployment"]["reason"]) == ("failed", "unhealthy_instance")
    failed = reported["deployment"]["instances"][0]
    assert (failed["status"], failed["exit_code"]) == ("failed", 3)
    assert "no configuration" in failed["log_tail"]
    listed = app_fixture.client.get("/deployments").json()["items"][0]["instances"][0]
    assert listed["log_tail"] is None, "64 KiB each would make a list too long"
    service = app_fixture.client.get("/services/web").json()
    assert (service["status"], service["revision"]) == ("stopped", None), "nothing of it is wanted"


def test_failed_second_deployment_is_rolled_back(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    app_fixture.engine.behave("web:2", AT_ONCE)
    reported = problem(app_fixture.deploy(image="web:2"), 409, "deployment_failed")
    assert reported["deployment"]["status"] == "rolled_back"
    assert app_fixture.client.get("/services/web").json()["image"] == "web:1"


def test_missing_image_fails_the_deployment_and_starts_nothing(app_fixture: AppFixture) -> None:
    answer = app_fixture.client.post("/deployments?wait=20", json={"service": "web", "image": "nowhere:1"})
    reported = problem(answer, 409, "deployment_failed")
    assert reported["deployment"]["reason"] == "image_pull_failed"
    assert app_fixture.engine.containers == {}


def test_failure_action_pause_answers_a_wait_when_the_deployment_fails(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    app_fixture.engine.behave("web:2", AT_ONCE)
    reported = problem(app_fixture.deploy(image="web:2", failure_action="pause"), 409, "deployment_paused")
    assert reported["deployment"]["actions"] == ["resume", "abort"]
    id = reported["deployment"]["id"]
    assert app_fixture.client.post(f"/deployments/{id}/abort").status_code == 200
    assert app_fixture.client.get(f"/deployments/{id}?wait=20").json()["status"] == "aborted"


def test_pause_by_a_user_does_not_end_a_wait(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    id = app_fixture.deploy(image="web:2", wait="", healthcheck=NEVER).json()["id"]
    eventually(lambda: "pause" in app_fixture.client.get(f"/deployments/{id}").json()["actions"], "it is under way")
    paused = app_fixture.client.post(f"/deployments/{id}/pause")
    assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    assert app_fixture.client.get(f"/deployments/{id}?wait=0.2").json()["status"] == "paused"


def test_wait_timeout_of_a_deployment_answers_504_with_its_location(app_fixture: AppFixture) -> None:
    answer = app_fixture.deploy(wait="0.2", healthcheck=NEVER)
    reported = problem(answer, 504, "wait_timeout")
    assert (answer.headers["retry-after"], answer.headers["location"]) == ("1", "/deployments/1")
    assert reported["deployment"]["status"] in ("pending", "progressing")
    assert app_fixture.client.get("/deployments/1?wait=0.1").status_code == 200


def test_wait_for_a_superseded_or_aborted_deployment_answers_409(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    first = app_fixture.deploy(image="web:2", wait="", healthcheck=NEVER).json()["id"]
    app_fixture.deploy(image="web:1", replicas=2)
    key = {"Idempotency-Key": "abort me"}
    superseded = app_fixture.client.get(f"/deployments/{first}").json()
    assert (superseded["status"], superseded["reason"]) == ("superseded", "newer_revision")
    assert superseded["superseded_by"] == first + 1

    app_fixture.image("web:3")
    body = {"service": "web", "image": "web:3", "healthcheck": NEVER}
    second = app_fixture.client.post("/deployments", json=body, headers=key).json()["id"]
    eventually(lambda: app_fixture.client.get(f"/deployments/{second}").json()["status"] == "progressing", "it is under way")
    app_fixture.client.post(f"/deployments/{second}/abort")
    reported = problem(app_fixture.client.post("/deployments?wait=20", json=body, headers=key), 409, "deployment_aborted")
    assert reported["deployment"]["reason"] == "user"


def test_scale_restart_rollback_and_remove_are_deployments_too(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    app_fixture.deploy(image="web:2")
    for path, body, kind in [
        ("scale", {"replicas": 2}, "scale"),
        ("restart", {}, "restart"),
        ("rollback", {}, "rollback"),
        ("rollback", {"to_revision": 2}, "rollback"),
    ]:
        answer = app_fixture.client.post(f"/services/web/{path}?wait=20", json=body)
        assert (answer.status_code, answer.json()["kind"]) == (200, kind), answer.text
    service = app_fixture.client.get("/services/web").json()
    assert (service["replicas"], service["serving"], service["image"]) == (2, 2, "web:2")
    assert (service["status"], service["deployment"]["kind"]) == ("serving", "rollback")
    gone = app_fixture.client.delete("/services/web?wait=20")
    assert (gone.status_code, gone.json()["kind"]) == (200, "remove")
    assert app_fixture.client.get("/services/web").json()["status"] == "removed"
    assert app_fixture.count("/services") == 0
    assert app_fixture.count("/services", removed="true") == 1
    assert app_fixture.count("/deployments", service="web") == 7, "history stays readable"
    assert app_fixture.engine.containers == {}


def test_retry_makes_a_new_deployment_of_the_same_request(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    app_fixture.engine.behave("web:2", AT_ONCE)
    failed = app_fixture.deploy(image="web:2").json()["deployment"]
    assert failed["actions"] == ["retry"]
    app_fixture.engine.behave("web:2", Behaviour())
    again = app_fixture.client.post(f"/deployments/{failed['id']}/retry?wait=20")
    assert (again.status_code, again.json()["retry_of"]) == (200, failed["id"])
    problem(app_fixture.client.post(f"/deployments/{again.json()['id']}/retry"), 409, "not_in_that_state")


def test_action_in_the_wrong_state_is_refused_with_the_state(app_fixture: AppFixture) -> None:
    id = app_fixture.deploy().json()["id"]
    for action in ("pause", "resume", "abort"):
        reported = problem(app_fixture.client.post(f"/deployments/{id}/{action}"), 409, "not_in_that_state")
        assert "succeeded" in reported["detail"]
    problem(app_fixture.client.post("/deployments/999/pause"), 404, "unknown_deployment")


def test_registry_header_reaches_the_pull_and_nothing_else(
    app_fixture: AppFixture, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "eyJ1c2VybmFtZSI6ICJhZGEiLCAicGFzc3dvcmQiOiAiaHVudGVyMiJ9"
    app_fixture.image("web:1")
    body = {"service": "web", "image": "web:1", "healthcheck": READY}
    answer = app_fixture.client.post("/deployments?wait=20", json=body, headers={"X-Registry-Auth": secret})
    assert answer.status_code == 200, answer.text
    assert app_fixture.engine.pulls == [("web:1", secret)]
    seen = "".join(app_fixture.client.get(path).text for path in ("/deployments", "/events", "/audit", "/services"))
    database = b"".join(path.read_bytes() for path in app_fixture.data.glob("sluice.db*"))
    assert secret not in seen + caplog.text
    assert secret.encode() not in database
    for bad in ("x" * 20_000, "not base64!", "WzFd"):
        refused = app_fixture.client.post("/deployments", json=body, headers={"X-Registry-Auth": bad})
        reported = problem(refused, 422, "invalid")
        assert reported["errors"][0]["field"] == "X-Registry-Auth"
        assert bad not in refused.text


def test_full_disk_answers_503_and_leaves_nothing(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    store = app_fixture.sluice.store
    with store.write_session() as session:
        pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar()
        session.connection().exec_driver_sql(f"PRAGMA max_page_count={pages}")
    answer = app_fixture.client.post(
        "/deployments", json={"service": "web", "note": "n" * 900, "environment": {"A": "x" * 9000}}
    )
    reported = problem(answer, 503, "store_unavailable")
    assert "database or disk is full" in reported["detail"]
    assert app_fixture.count("/deployments") == 1
    refused = app_fixture.client.post("/services/web/scale", json={"replicas": "x" * 500})
    problem(refused, 422, "invalid")
    with store.write_session() as session:
        session.connection().exec_driver_sql("PRAGMA max_page_count=1000000")
    assert app_fixture.deploy(image="web:2").status_code == 200


def test_unreachable_engine_delays_a_deployment_without_failing_it(app_fixture: AppFixture) -> None:
    app_fixture.engine.fail_next("pull", EngineError("connection refused", transient=True))
    assert app_fixture.deploy(wait="20").status_code == 200
