"""Changing a service from its page: form, plan and deployment; invalid answers are reported beside their field."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from services.actor import SYSTEM
from services.grant import Grant
from services.store.tables import Deployment, Revision
from tests.support.dashboard_fixture import DashboardFixture, apart


@pytest.fixture(autouse=True)
def serving(dashboard_fixture: DashboardFixture) -> None:
    """Let web serve its revision 1 with three instances; its revision 2 never served."""
    dashboard_fixture.service()
    dashboard_fixture.deployment(status="failed", finished_at=dashboard_fixture.sluice.clock.now())


def newest(dashboard_fixture: DashboardFixture) -> dict[str, Any]:
    with dashboard_fixture.sluice.store.read_session() as session:
        row = session.exec(select(Deployment).order_by(col(Deployment.id).desc())).first()
        assert row is not None
        return {"id": row.id, "kind": row.kind, "body": row.body, "replicas": row.replicas, "note": row.note}


def wrong(text: str) -> dict[str, str]:
    """Map each field with an error to its message."""
    found = re.findall(r'<p class="error" id="error-(\w+)">(.*?)</p>', text, re.S)
    return {field: html.unescape(message) for field, message in found}


def test_plan_is_shown_without_deploying(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    before = newest(dashboard_fixture)
    answer = admin_browser.post("/ui/services/web/scale", data={"step": "plan", "replicas": "5"})
    assert answer.status_code == 200
    for shown in ("3 → 5", "sluice scale web 5", "start web-r1-1", "/services/web/scale?wait=600"):
        assert shown in html.unescape(answer.text), shown
    assert newest(dashboard_fixture) == before


def test_confirmed_plan_is_deployed_and_redirects_to_its_deployment(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    answer = admin_browser.post("/ui/services/web/scale", data={"step": "do", "replicas": "5"})
    made = newest(dashboard_fixture)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/ui/deployments/{made['id']}")
    assert (made["kind"], made["replicas"]) == ("scale", 5)
    assert dashboard_fixture.hinted == ["web"]


def test_deploy_form_accepts_fields_of_every_kind(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    answers = {"image": " web:3 ", "replicas": "4", "note": "a ticket", "fields": "environment:\n  LOG_LEVEL: debug\n"}
    plan = html.unescape(admin_browser.post("/ui/services/web/deploy", data={"step": "plan", **answers}).text)
    for shown in (
        "environment.LOG_LEVEL",
        "web:3",
        "sluice deploy web --set",
        "--image web:3 --replicas 4 --note 'a ticket'",
    ):
        assert shown in plan, shown
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', plan))
    assert admin_browser.post("/ui/services/web/deploy", data={"step": "do", **hidden}).status_code == 303
    made = newest(dashboard_fixture)
    assert made["body"] == {"image": "web:3", "replicas": 4, "environment": {"LOG_LEVEL": "debug"}}
    assert made["note"] == "a ticket"


def test_secret_is_hidden_in_the_plan_and_deployed(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    answers = {"image": "web:3", "replicas": "", "note": "", "fields": "environment: {API_PASSWORD: hunter2}"}
    text = admin_browser.post("/ui/services/web/deploy", data={"step": "plan", **answers}).text
    hidden = '<input type="hidden" name="fields" value="environment: {API_PASSWORD: hunter2}">'
    assert hidden in text
    assert "hunter2" not in text.replace(hidden, "")
    assert "Secrets are hidden" in text
    admin_browser.post("/ui/services/web/deploy", data={"step": "do", **answers})
    assert newest(dashboard_fixture)["body"] == {"image": "web:3", "environment": {"API_PASSWORD": "hunter2"}}


def test_form_keeps_its_answers_when_the_user_goes_back_from_the_plan(admin_browser: TestClient) -> None:
    text = admin_browser.post(
        "/ui/services/web/deploy", data={"step": "change", "image": "web:9", "fields": "port: 81"}
    ).text
    assert 'value="web:9"' in text
    assert "port: 81</textarea>" in text


def test_restart_and_remove_show_their_plan_at_once(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    assert "sluice restart web" in admin_browser.get("/ui/services/web/restart").text
    assert "sluice rm web" in admin_browser.get("/ui/services/web/remove").text
    admin_browser.post("/ui/services/web/remove", data={"step": "do"})
    assert newest(dashboard_fixture)["kind"] == "remove"


@pytest.mark.parametrize(
    ("kind", "answers", "field", "said"),
    [
        ("scale", {"replicas": ""}, "replicas", "a whole number from 0 to 100"),
        ("scale", {"replicas": "many"}, "replicas", "a whole number"),
        ("scale", {"replicas": "-1"}, "replicas", "a whole number"),
        ("scale", {"replicas": "101"}, "replicas", "a whole number"),
        ("scale", {"replicas": "9" * 400}, "replicas", "a whole number"),
        ("scale", {"replicas": "²"}, "replicas", "a whole number"),
        ("rollback", {"to_revision": "first"}, "to_revision", "a whole number"),
        ("rollback", {"to_revision": "77"}, "to_revision", "must be one of"),
        ("deploy", {}, "image", "change the image, the number"),
        ("deploy", {"image": "web one"}, "image", ""),
        ("deploy", {"image": "x" * 5000}, "image", ""),
        ("deploy", {"replicas": "1.5"}, "replicas", "a whole number"),
        ("deploy", {"fields": "imgae: web:3"}, "fields", 'did you mean "image"'),
        ("deploy", {"fields": "port: many"}, "fields", "port"),
        ("deploy", {"fields": "environment: {A: [1]}"}, "fields", "environment.A: must be"),
        ("deploy", {"fields": "replicas: 500"}, "replicas", "must be at most 100"),
        ("deploy", {"fields": "- a list"}, "fields", "must be a mapping"),
        ("deploy", {"fields": "{unfinished"}, "fields", "line 1"),
        ("deploy", {"fields": "a: &a [*a, *a]"}, "fields", ""),
        ("deploy", {"fields": "note: 2026-11-25"}, "fields", "a date"),
        ("deploy", {"fields": "1: 2"}, "fields", "must be a mapping"),
        ("deploy", {"fields": f"environment: {'[' * 40}{']' * 40}"}, "fields", "nested more than 32 levels deep"),
        ("deploy", {"fields": 'labels: {a: "\\ud800"}'}, "fields", "not Unicode"),
        ("deploy", {"fields": "!!python/object/apply:os.system ['id']"}, "fields", ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", ["plan", "do"])
def test_invalid_answers_are_reported_beside_their_field(
    dashboard_fixture: DashboardFixture,
    admin_browser: TestClient,
    kind: str,
    answers: dict[str, str],
    field: str,
    said: str,
    step: str,
) -> None:
    before = newest(dashboard_fixture)
    answer = admin_browser.post(f"/ui/services/web/{kind}", data={"step": step, **answers})
    assert answer.status_code == 422
    assert said in wrong(answer.text)[field]
    assert f'aria-describedby="hint-{field} error-{field}" aria-invalid="true"' in answer.text
    for value in answers.values():
        assert html.escape(value, quote=False)[:200] in answer.text.replace("&#34;", '"').replace("&#39;", "'")
    assert newest(dashboard_fixture) == before


def test_error_without_a_field_is_shown_above_the_form(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    dashboard_fixture.service("idle", 1)
    answer = admin_browser.get("/ui/services/idle/rollback")
    assert answer.status_code == 409
    assert "no earlier revision of idle that differs has served" in answer.text


@pytest.mark.parametrize("path", ["missing/scale", "web/nothing", "web/scale/x", "<b>/deploy"])
def test_form_of_an_unknown_service_or_action_is_404(admin_browser: TestClient, path: str) -> None:
    assert admin_browser.get(f"/ui/services/{path}").status_code == 404
    assert admin_browser.post(f"/ui/services/{path}").status_code in (404, 405)


def test_read_token_cannot_change_a_service(dashboard_fixture: DashboardFixture, anonymous_browser: TestClient) -> None:
    _, token = apart(dashboard_fixture.sluice.auth.create("eyes", "read", None, None, SYSTEM))
    anonymous_browser.post("/ui/sign-in", data={"token": token})
    assert "/ui/services/web/scale" not in anonymous_browser.get("/ui/services/web").text
    for step in ("plan", "do"):
        answer = anonymous_browser.post("/ui/services/web/scale", data={"step": step, "replicas": "5"})
        assert answer.status_code == 403
        assert 'the scope "deploy" is needed' in html.unescape(answer.text)
    assert newest(dashboard_fixture)["kind"] == "deploy"


@pytest.mark.parametrize("kind", ["deploy", "scale", "remove"])
def test_form_is_refused_at_once_for_a_token_of_other_services(
    dashboard_fixture: DashboardFixture, anonymous_browser: TestClient, kind: str
) -> None:
    _, token = apart(dashboard_fixture.sluice.auth.create("pay", "write", Grant(("pay-*",)), None, SYSTEM))
    anonymous_browser.post("/ui/sign-in", data={"token": token})
    assert anonymous_browser.get(f"/ui/services/web/{kind}").status_code == 403


def test_deploy_scope_changes_only_the_image(dashboard_fixture: DashboardFixture, anonymous_browser: TestClient) -> None:
    _, token = apart(dashboard_fixture.sluice.auth.create("ci", "deploy", Grant(("web",)), None, SYSTEM))
    anonymous_browser.post("/ui/sign-in", data={"token": token})
    assert anonymous_browser.post("/ui/services/web/deploy", data={"step": "do", "image": "web:3"}).status_code == 303
    answer = anonymous_browser.post("/ui/services/web/deploy", data={"step": "do", "fields": "port: 81"})
    assert answer.status_code == 403
    assert anonymous_browser.post("/ui/services/web/remove", data={"step": "do"}).status_code == 403
    dashboard_fixture.service("api")
    assert anonymous_browser.post("/ui/services/api/scale", data={"step": "do", "replicas": "1"}).status_code == 403


def test_change_from_another_site_is_refused(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    before = newest(dashboard_fixture)
    answer = admin_browser.post(
        "/ui/services/web/scale", data={"step": "do", "replicas": "0"}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 403
    assert newest(dashboard_fixture) == before


def test_digest_is_shortened_in_a_diff_and_complete_on_hover(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    whole = f"sha256:{'0123456789abcdef' * 4}"
    dashboard_fixture.change(Revision, ("web", 1), image_id=whole)
    text = admin_browser.get("/ui/services/web/changes?from=1&to=2").text
    assert f'title="{whole}">sha256:0123456789ab…</del>' in text


def test_changes_page_compares_two_revisions(admin_browser: TestClient) -> None:
    text = admin_browser.get("/ui/services/web/changes", params={"from": "1", "to": "2"}).text
    assert '<del class="mono">web:1</del>' in text
    assert '<ins class="mono">web:2</ins>' in text
    for nonsense in ({}, {"from": "x", "to": "-3"}, {"from": "99"}):
        assert admin_browser.get("/ui/services/web/changes", params=nonsense).status_code == 200
    assert admin_browser.get("/ui/services/missing/changes").status_code == 404


@pytest.mark.parametrize(
    ("first", "line", "said"),
    [
        ("a0: &a0 x", "a{n}: &a{n} [{nine}]", "aliases counted"),
        ("a0: &a0 {x: 1}", "a{n}: &a{n} {{<<: [{nine}]}}", "aliases counted"),
        ("a: &a [*a]", "", "aliases counted"),
        ("a: " + "x" * 40_000, "", "is longer than"),
    ],
)
def test_yaml_bomb_is_refused_at_once(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient, first: str, line: str, said: str
) -> None:
    """Forty lines of aliases stand for 9**40 values."""
    lines = [first, *(line.format(n=n, nine=", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 41))]
    answer = admin_browser.post("/ui/services/web/deploy", data={"step": "plan", "fields": "\n".join(filter(None, lines))})
    assert answer.status_code == 422
    assert said in wrong(answer.text)["fields"]


def test_form_beyond_scope_is_refused_before_it_is_parsed(
    dashboard_fixture: DashboardFixture, anonymous_browser: TestClient
) -> None:
    _, secret = apart(dashboard_fixture.sluice.auth.create("reader", "read", None, None, SYSTEM))
    assert anonymous_browser.post("/ui/sign-in", data={"token": secret}).status_code == 303
    answer = anonymous_browser.post("/ui/services/web/deploy", data={"step": "plan", "fields": "not: [YAML"})
    assert answer.status_code == 403
