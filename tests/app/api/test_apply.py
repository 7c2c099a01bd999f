"""POST /apply deploys all services of a Compose file or none, each after its dependencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.engine.port import EngineError
from tests.app.api.test_deployments import problem
from tests.support.app_fixture import AppFixture, build, eventually, living
from tests.support.fakes.engine import Behaviour

YAML = {"Content-Type": "application/yaml"}
READY = "x-sluice: {healthcheck: {disable: true}}"
SHOP = """\
name: shop
services:
  web:
    image: web:1
    ports: ["8080:80"]
    environment: {TAG: "${TAG:-none}"}
    depends_on:
      api: {condition: service_healthy}
    x-sluice: {healthcheck: {disable: true}, routes: [{path_prefix: /web}]}
  api:
    image: api:1
    expose: [8000]
    x-sluice: {healthcheck: {disable: true}}
  db:
    image: postgres
    x-sluice: {manage: false}
"""
NEVER_READY = SHOP.replace("x-sluice: {healthcheck: {disable: true}}", "healthcheck: {test: 'false'}")
DIES = Behaviour(exits_at_once=3, log="no configuration\n")
NETWORKS = {"shop_default"}


@pytest.fixture(autouse=True)
def _there(app_fixture: AppFixture) -> None:
    """Provide the images, and the network of the project whose database Compose runs."""
    app_fixture.image("web:1", "api:1")
    app_fixture.engine.networks |= NETWORKS


def apply(app_fixture: AppFixture, text: str = SHOP, query: str = "?wait=20", **headers: str) -> Any:
    return app_fixture.client.post(f"/apply{query}", content=text, headers={**YAML, **headers})


def nothing_was_written(app_fixture: AppFixture) -> bool:
    return (app_fixture.count("/deployments"), app_fixture.count("/services")) == (0, 0)


def test_compose_file_is_deployed_as_one_group_in_dependency_order(app_fixture: AppFixture) -> None:
    answer = apply(app_fixture, query="?note=3f2a9c1")
    assert (answer.status_code, answer.json()) == (202, {"group": 1, "deployments": [1, 2]})
    assert answer.headers["location"] == "/deployments?group=1"
    app_fixture.client.get("/deployments/2?wait=20")
    web, api = app_fixture.client.get("/deployments?group=1").json()["items"]
    assert [(one["service"], one["status"], one["group"], one["note"]) for one in (api, web)] == [
        ("api", "succeeded", 1, "3f2a9c1"), ("web", "succeeded", 1, "3f2a9c1"),
    ]  # fmt: skip
    assert web["depends_on"] == [{"deployment": 1, "required": True}]
    assert api["finished_at"] <= web["started_at"]
    spec = app_fixture.client.get("/services/web").json()["spec"]
    assert (spec["links"], spec["networks"], spec["environment"]) == (["api"], ["shop_default"], {"TAG": "none"})
    assert app_fixture.count("/services") == 2, "the database is left alone"


def test_second_apply_makes_a_new_group_and_leaves_unchanged_services_alone(app_fixture: AppFixture) -> None:
    assert apply(app_fixture).json() == {"group": 1, "deployments": [1, 2]}
    assert apply(app_fixture).json() == {"group": 2, "deployments": [3, 4]}
    assert {one["reason"] for one in app_fixture.client.get("/deployments?group=2").json()["items"]} == {"unchanged"}
    only = apply(app_fixture, query="?only=web&wait=20")
    assert (only.status_code, only.json()) == (200, {"group": 3, "deployments": [5]})
    assert app_fixture.client.get("/deployments/5").json()["reason"] == "unchanged"


def test_dependent_deployment_fails_without_starting_when_its_dependency_fails(app_fixture: AppFixture) -> None:
    app_fixture.engine.behave("api", DIES)
    reported = problem(apply(app_fixture), 409, "deployment_failed")
    assert (reported["group"], reported["deployment"]["service"], reported["deployment"]["reason"]) == (
        1,
        "api",
        "unhealthy_instance",
    )
    web = app_fixture.client.get("/deployments/2").json()
    assert (web["status"], web["reason"], web["revision"]) == ("failed", "dependency_failed", None)
    assert web["message"].startswith("dependency api failed: its deployment 1 failed: ")
    assert not [id for id in app_fixture.engine.containers if id.startswith("web-")]


def test_dependent_service_keeps_serving_when_a_dependency_fails(app_fixture: AppFixture) -> None:
    apply(app_fixture)
    app_fixture.image("api:2")
    app_fixture.engine.behave("api:2", DIES)
    problem(apply(app_fixture, SHOP.replace("api:1", "api:2").replace(":-none", ":-new")), 409, "deployment_failed")
    web = app_fixture.client.get("/deployments/4").json()
    assert (web["status"], web["reason"]) == ("rolled_back", "dependency_failed")
    assert app_fixture.client.get("/services/web").json()["status"] == "serving"


def test_optional_dependency_may_fail(app_fixture: AppFixture) -> None:
    app_fixture.engine.behave("api", DIES)
    reported = problem(
        apply(app_fixture, SHOP.replace("service_healthy", "service_started, required: false")), 409, "deployment_failed"
    )
    assert reported["deployment"]["service"] == "api"
    assert app_fixture.client.get("/deployments/2").json()["status"] == "succeeded"


def test_superseded_dependency_is_replaced_by_the_deployment_that_supersedes_it(app_fixture: AppFixture) -> None:
    apply(app_fixture, NEVER_READY, query="")
    eventually(lambda: app_fixture.client.get("/deployments/1").json()["status"] == "progressing", "api is under way")
    waiting = app_fixture.client.get("/deployments/2").json()
    assert (waiting["status"], waiting["message"], waiting["actions"]) == ("pending", "waits for api", ["abort"])
    app_fixture.deploy("api", "api:1", healthcheck={"disable": True, "test": None})
    assert app_fixture.client.get("/deployments/1").json()["status"] == "superseded"
    assert app_fixture.client.get("/deployments/2?wait=20").json()["status"] == "succeeded"


def test_aborted_dependency_fails_the_deployments_that_wait_for_it(app_fixture: AppFixture) -> None:
    apply(app_fixture, NEVER_READY, query="")
    eventually(lambda: app_fixture.client.get("/deployments/1").json()["status"] == "progressing", "api is under way")
    app_fixture.client.post("/deployments/1/abort")
    ended = app_fixture.client.get("/deployments/2?wait=20").json()
    assert (ended["status"], ended["reason"]) == ("failed", "dependency_failed")


def test_unsupported_compose_fields_are_all_reported_with_their_lines(app_fixture: AppFixture) -> None:
    text = SHOP.replace("    expose: [8000]", "    expose: [8000]\n    cap_add: [X]\n    privileged: true")
    reported = problem(apply(app_fixture, text), 422, "invalid_compose")
    assert [error["field"] for error in reported["errors"]] == ["services.api.cap_add", "services.api.privileged"]
    assert reported["errors"][0]["message"].startswith("line 13: not supported")
    assert nothing_was_written(app_fixture)


def test_spec_errors_of_all_services_are_reported_with_their_lines(app_fixture: AppFixture) -> None:
    text = SHOP.replace("path_prefix: /web", "path_prefix: web").replace(
        "expose: [8000]", "environment: {'A=B': x}\n    user: '!'"
    )
    reported = problem(apply(app_fixture, text), 422, "invalid_compose")
    assert [(error["field"], error["message"].partition(":")[0]) for error in reported["errors"]] == [
        ("services.api.user", "line 13"), ("services.api.environment.A=B.[key]", "line 12"),
        ("services.web.x-sluice.routes.0.path_prefix", "line 9"),
    ]  # fmt: skip
    assert nothing_was_written(app_fixture)


def test_services_of_a_compose_file_cannot_share_a_route(app_fixture: AppFixture) -> None:
    text = SHOP.replace("    x-sluice: {healthcheck: {disable: true}}\n", "    x-sluice: {routes: [{path_prefix: /web/}]}\n")
    reported = problem(apply(app_fixture, text), 422, "invalid_compose")
    assert reported["errors"] == [
        {"field": "services.web.x-sluice.routes.0", "message": 'line 9: service "api" already has this route'}
    ]
    assert nothing_was_written(app_fixture)


def test_missing_network_is_reported_for_the_service_that_needs_it(app_fixture: AppFixture) -> None:
    app_fixture.engine.networks -= NETWORKS
    reported = problem(apply(app_fixture), 422, "invalid_compose")
    assert reported["errors"][0]["field"] == "services.api.networks"
    assert "shop_default" in reported["errors"][0]["message"]
    assert nothing_was_written(app_fixture)


def test_service_that_compose_runs_is_not_taken_over(app_fixture: AppFixture) -> None:
    app_fixture.engine.compose = {("shop", "api"): "shop-api-1", ("shop", "db"): "shop-db-1", ("blog", "web"): "blog-web-1"}
    reported = problem(apply(app_fixture), 422, "invalid_compose")
    (error,) = reported["errors"]
    assert error["field"] == "services.api"
    assert "shop-api-1" in error["message"]
    assert "docker compose stop api" in error["message"]


def test_service_of_another_project_is_not_taken_over(app_fixture: AppFixture) -> None:
    app_fixture.engine.networks.add("blog_default")
    apply(app_fixture)
    reported = problem(apply(app_fixture, query="?project=blog"), 422, "invalid_compose")
    assert [error["field"] for error in reported["errors"]] == ["services.api", "services.web"]
    assert '"shop"' in reported["errors"][0]["message"]


def test_json_body_carries_variables_and_env_files(app_fixture: AppFixture) -> None:
    text = (
        "services: {web: {image: 'web:${TAG}', env_file: web.env, environment: [PASSED], volumes: [./x:/x], " + READY + "}}"
    )
    body = {"compose": text, "variables": {"TAG": "1", "PASSED": "p"}, "env_files": {"web.env": {"A": "a"}}}
    reported = problem(app_fixture.client.post("/apply?project=shop&directory=/srv", json=body), 422, "invalid_compose")
    assert reported["errors"][0]["field"] == "services.web.volumes.0.source", "host paths are for the operator to allow"
    assert "SLUICE_HOST_ROOTS" in reported["errors"][0]["message"]
    body["compose"] = text.replace("volumes: [./x:/x], ", "")
    assert app_fixture.client.post("/apply?project=shop&wait=20", json=body).status_code == 200
    assert app_fixture.client.get("/services/web").json()["spec"]["environment"] == {"A": "a", "PASSED": "p"}


def test_yaml_body_cannot_refer_to_files_of_the_client(app_fixture: AppFixture) -> None:
    reported = problem(
        apply(app_fixture, "services: {web: {image: web:1, env_file: .env}}", query="?project=shop"), 422, "invalid_compose"
    )
    assert "line 1: is a local file" in reported["errors"][0]["message"]


def test_compose_warning_is_recorded_with_its_deployment(app_fixture: AppFixture) -> None:
    apply(app_fixture, SHOP.replace("    image: api:1", "    image: api:1\n    container_name: api"))
    (warning,) = app_fixture.client.get("/deployments/1").json()["warnings"]
    assert warning["code"] == "compose"
    assert warning["message"].startswith("services.api.container_name (line 12) ignored")


def test_idempotency_key_returns_the_same_group_and_refuses_another_selection(app_fixture: AppFixture) -> None:
    key = {"Idempotency-Key": "run 7"}
    first, again = apply(app_fixture, **key), apply(app_fixture, **key)
    assert first.json() == again.json() == {"group": 1, "deployments": [1, 2]}
    assert app_fixture.count("/deployments") == 2
    problem(apply(app_fixture, query="?only=api", **key), 422, "idempotency_key_reused")


def test_wait_timeout_of_a_group_answers_with_its_location(app_fixture: AppFixture) -> None:
    answer = apply(app_fixture, NEVER_READY, query="?wait=0.2")
    reported = problem(answer, 504, "wait_timeout")
    assert (answer.headers["location"], reported["group"]) == ("/deployments?group=1", 1)


def test_dry_run_of_a_compose_file_previews_every_service_and_writes_nothing(app_fixture: AppFixture) -> None:
    answer = apply(app_fixture, query="?dry_run=true")
    assert answer.status_code == 200, answer.text
    previews = answer.json()["previews"]
    assert [(one["service"], one["replicas"]) for one in previews] == [("api", 1), ("web", 1)]
    assert nothing_was_written(app_fixture)
    problem(apply(app_fixture, SHOP.replace("/web", "web"), query="?dry_run=true"), 422, "invalid_compose")


def test_apply_requires_a_token_for_every_service_of_the_file(app_fixture: AppFixture) -> None:
    web, both = (app_fixture.as_scope("write", services=services) for services in (["web"], ["web", "api", "more"]))
    problem(apply(app_fixture, **web), 403, "insufficient_scope")
    problem(apply(app_fixture, **app_fixture.as_scope("deploy")), 403, "insufficient_scope")
    assert nothing_was_written(app_fixture)
    reported = problem(apply(app_fixture, **both), 422, "invalid_compose")
    assert "not yet one of a service that this token covers" in reported["errors"][0]["message"], "the project's network"
    assert nothing_was_written(app_fixture)
    assert apply(app_fixture).status_code == 200
    assert apply(app_fixture, query="?only=web&wait=20", **web).status_code == 200
    assert apply(app_fixture, **both).status_code == 200


def test_apply_answers_503_when_the_engine_is_unreachable(app_fixture: AppFixture) -> None:
    app_fixture.engine.fail_next("compose_containers", EngineError("no answer", transient=True))
    problem(apply(app_fixture), 503, "engine_unavailable")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"\xff", 400, "bad_request"),
        (b"", 422, "invalid_compose"),
        (b"- a", 422, "invalid_compose"),
        (b"a: [", 422, "invalid_compose"),
    ],
)
def test_invalid_compose_file_is_answered_with_a_problem(
    app_fixture: AppFixture, body: bytes, status: int, code: str
) -> None:
    problem(app_fixture.client.post("/apply", content=body, headers=YAML), status, code)


def test_group_continues_after_a_restart_of_sluice(tmp_path: Path) -> None:
    """The dependencies are in the store; the fake engine loses its containers, so the waiting deployment fails too."""
    with living(build(tmp_path)) as before:
        before.image("api:1", "web:1")
        before.engine.networks |= NETWORKS
        apply(before, NEVER_READY, query="")
        eventually(lambda: before.engine.containers, "api is started")
    with living(build(tmp_path)) as after:
        ended = after.client.get("/deployments/2?wait=20").json()
        assert (ended["status"], ended["reason"]) == ("failed", "dependency_failed")
