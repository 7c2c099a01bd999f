"""A dry run shows what the same call would change and do, is refused like that call, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.app_fixture import NEVER, READY, AppFixture, eventually

pytestmark = pytest.mark.slow


def previewed(
    app_fixture: AppFixture, path: str, body: dict[str, Any] | None = None, method: str = "POST"
) -> dict[str, Any]:
    answer = app_fixture.client.request(method, f"{path}?dry_run=true", json=body if method == "POST" else None)
    assert answer.status_code == 200, answer.text
    preview: dict[str, Any] = answer.json()
    return preview


def done(preview: dict[str, Any]) -> list[str]:
    return [f"{step['turn']} {step['action']} {step['instance']}" for step in preview["steps"]]


def changes(preview: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {change["field"]: (change["old"], change["new"]) for change in preview["diff"]}


def rows(app_fixture: AppFixture) -> list[int]:
    return [app_fixture.count(path) for path in ("/deployments", "/services", "/instances", "/events", "/audit")]


def test_dry_run_of_a_new_version_shows_its_diff_and_its_steps(app_fixture: AppFixture) -> None:
    first = app_fixture.deploy(environment={"LEVEL": "info", "API_TOKEN": "one"}, routes=[{"path_prefix": "/web"}]).json()
    app_fixture.image("web:2")
    app_fixture.engine.images["web:2"] = app_fixture.engine.registry["web:2"]
    body = {"service": "web", "image": "web:2", "environment": {"LEVEL": "debug", "API_TOKEN": "two"}}
    before = rows(app_fixture)
    preview = previewed(app_fixture, "/deployments", body)
    assert (preview["kind"], preview["from_revision"], preview["revision"]) == ("deploy", 1, 2)
    assert changes(preview) == {
        "image": ("web:1", "web:2"),
        "environment.LEVEL": ("info", "debug"),
        "environment.API_TOKEN": ("***", "***"),
        "image_id": (first["image_id"], app_fixture.engine.images["web:2"].id),
    }
    assert done(preview) == [
        "1 start web-r2-1", "2 admit web-r2-1", "3 withdraw web-r1-1", "4 stop web-r1-1", "5 remove web-r1-1",
    ]  # fmt: skip
    assert [step["revision"] for step in preview["steps"]] == [2, 2, 1, 1, 1]
    assert preview["replaces_instances"] and not preview["unchanged"]
    assert preview["message"] == "starts 1 instance, then drains and removes 1"
    assert rows(app_fixture) == before
    made = app_fixture.client.post("/deployments?wait=20", json=body).json()
    assert (made["id"], made["revision"]) == (first["id"] + 1, 2), "no number was used up"
    assert {instance["id"] for instance in made["instances"]} == {"web-r2-1"}


def test_dry_run_of_a_first_deployment_leaves_no_service(app_fixture: AppFixture) -> None:
    app_fixture.image("web:1")
    preview = previewed(
        app_fixture, "/deployments", {"service": "web", "image": "web:1", "replicas": 2, "healthcheck": READY}
    )
    assert done(preview) == ["1 start web-r1-1", "1 start web-r1-2", "2 admit web-r1-1", "2 admit web-r1-2"]
    assert changes(preview)["replicas"] == (None, 2) and preview["from_revision"] is None
    assert [warning["code"] for warning in preview["warnings"]] == ["image_not_here"]
    assert app_fixture.engine.pulls == [] and app_fixture.client.get("/services/web").status_code == 404


def test_dry_run_says_when_no_instance_is_replaced(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    preview = previewed(app_fixture, "/deployments", {"service": "web", "routes": [{"path_prefix": "/shop"}]})
    assert list(changes(preview)) == ["routes"]
    assert (preview["steps"], preview["replaces_instances"], preview["unchanged"]) == ([], False, False)
    assert preview["message"] == "starts and stops no instance"


def test_dry_run_says_when_nothing_changes(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    preview = previewed(app_fixture, "/deployments", {"service": "web", "image": "web:1"})
    assert (preview["unchanged"], preview["diff"], preview["steps"]) == (True, [], [])
    assert preview["message"] == "nothing to change"


def test_dry_run_supports_every_kind_of_deployment(app_fixture: AppFixture) -> None:
    app_fixture.deploy(replicas=2)
    app_fixture.deploy(image="web:2")
    before = rows(app_fixture)
    scaled = previewed(app_fixture, "/services/web/scale", {"replicas": 3})
    assert changes(scaled) == {"replicas": (2, 3)} and done(scaled) == ["1 start web-r2-3", "2 admit web-r2-3"]
    shrunk = previewed(app_fixture, "/services/web/scale", {"replicas": 1})
    assert [step.split(" ", 1)[1] for step in done(shrunk)] == ["withdraw web-r2-2", "stop web-r2-2", "remove web-r2-2"]
    assert not shrunk["replaces_instances"]
    back = previewed(app_fixture, "/services/web/rollback", {})
    assert back["revision"] == 1 and changes(back)["image"] == ("web:2", "web:1")
    assert "1 start web-r1-3" in done(back)
    again = previewed(app_fixture, "/services/web/restart")
    assert again["diff"] == [] and again["replaces_instances"] and "1 start web-r2-3" in done(again)
    gone = previewed(app_fixture, "/services/web", method="DELETE")
    assert (gone["kind"], changes(gone)) == ("remove", {"replicas": (2, 0)})
    assert gone["message"] == "drains and removes 2 instances" and not gone["replaces_instances"]
    assert rows(app_fixture) == before


def test_dry_run_supports_a_retry(app_fixture: AppFixture) -> None:
    app_fixture.engine.add_image("web:1")
    failed = app_fixture.client.post("/deployments?wait=20", json={"service": "web", "image": "web:9"}).json()["deployment"]
    preview = previewed(app_fixture, f"/deployments/{failed['id']}/retry")
    assert (preview["kind"], preview["image"], preview["image_id"]) == ("deploy", "web:9", None)


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/deployments", {"service": "web", "imge": "web:2"}, 422, "invalid_spec"),
        ("/deployments", {"service": "web", "image": "web:2", "expected_revision": 9}, 409, "revision_conflict"),
        ("/deployments", {"service": "new"}, 422, "invalid_spec"),
        ("/services/web/rollback", {}, 409, "no_rollback_target"),
        ("/services/web/rollback", {"to_revision": 7}, 422, "unknown_revision"),
        ("/services/no/scale", {"replicas": 2}, 404, "unknown_service"),
        ("/deployments/1/retry", {}, 409, "not_in_that_state"),
    ],
)
def test_dry_run_is_refused_with_the_same_problem_as_the_call(
    app_fixture: AppFixture, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    app_fixture.deploy()
    real, rehearsed = (app_fixture.client.post(path + query, json=body) for query in ("", "?dry_run=true"))
    assert (rehearsed.status_code, rehearsed.json()["code"]) == (status, code)
    assert rehearsed.json() == real.json()


def test_dry_run_requires_the_same_scope(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    headers = app_fixture.as_scope("deploy", services=["other"])
    answer = app_fixture.client.post("/services/web/scale?dry_run=true", json={"replicas": 2}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


def test_dry_run_warns_what_happens_to_the_deployment_in_progress(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    running = app_fixture.deploy(image="web:2", healthcheck=NEVER, wait="").json()["id"]
    eventually(lambda: app_fixture.client.get(f"/deployments/{running}").json()["status"] == "progressing", "it began")
    preview = previewed(app_fixture, "/services/web/scale", {"replicas": 2})
    assert [warning["code"] for warning in preview["warnings"]] == ["supersedes"]
    assert f"deployment {running}" in preview["warnings"][0]["message"]
    waits = previewed(app_fixture, "/deployments", {"service": "web", "image": "web:1", "on_conflict": "queue"})
    assert "waits" in [warning["code"] for warning in waits["warnings"]]
    assert app_fixture.client.get(f"/deployments/{running}").json()["status"] == "progressing"


def test_dry_run_answers_503_when_the_engine_is_unreachable(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    with app_fixture.engine.unreachable():
        answer = app_fixture.client.post("/services/web/restart?dry_run=true")
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_unavailable")


def test_dry_run_ignores_the_idempotency_key(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    key = {"Idempotency-Key": "once"}
    assert app_fixture.client.post("/services/web/scale?dry_run=true", json={"replicas": 2}, headers=key).status_code == 200
    assert app_fixture.client.post("/services/web/scale", json={"replicas": 3}, headers=key).status_code == 202


def test_revision_diff_compares_two_revisions(app_fixture: AppFixture) -> None:
    app_fixture.deploy(environment={"LEVEL": "info"})
    app_fixture.deploy(image="web:2", environment={"LEVEL": "debug"}, replicas=2)
    app_fixture.client.post("/deployments?wait=20", json={"service": "web", "max_surge": 1})
    there = app_fixture.client.get("/services/web/revisions/1/diff?to=2").json()
    assert (there["revision"], there["to"], there["replaces_instances"]) == (1, 2, True)
    assert changes(there)["environment.LEVEL"] == ("info", "debug") and "replicas" not in changes(there)
    assert changes(app_fixture.client.get("/services/web/revisions/2/diff?to=1").json())["image"] == ("web:2", "web:1")
    present = app_fixture.client.get("/services/web/revisions/2/diff").json()
    assert (present["to"], present["replaces_instances"], changes(present)) == (3, False, {"max_surge": (None, 1)})


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/services/web/revisions/9/diff", "revision_not_found"),
        ("/services/web/revisions/1/diff?to=9", "revision_not_found"),
        ("/services/no/revisions/1/diff", "unknown_service"),
    ],
)
def test_revision_diff_answers_404_for_an_unknown_revision_or_service(app_fixture: AppFixture, path: str, code: str) -> None:
    app_fixture.deploy()
    answer = app_fixture.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, code)


def test_revision_diff_of_a_removed_service_has_no_current_revision(app_fixture: AppFixture) -> None:
    app_fixture.deploy()
    app_fixture.client.delete("/services/web?wait=20")
    assert app_fixture.client.get("/services/web/revisions/1/diff").json()["code"] == "revision_not_found"
    assert app_fixture.client.get("/services/web/revisions/1/diff?to=1").json()["diff"] == []
