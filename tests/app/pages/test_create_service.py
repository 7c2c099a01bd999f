"""Creating a service from the overview: form, plan and deployment; errors are reported beside their field."""

from __future__ import annotations

import html
import re

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from services.actor import SYSTEM
from services.grant import Grant
from services.store.tables import Deployment, Event, Service
from tests.support.dashboard_fixture import DashboardFixture, apart

ANSWERS = {
    "name": " shop ", "image": "shop:1", "port": "8000", "replicas": "2", "note": "the first one",
    "fields": "routes: [{path_prefix: /shop}]\nenvironment: {API_PASSWORD: hunter2}\n",
}  # fmt: skip


def made(dashboard_fixture: DashboardFixture) -> list[Deployment]:
    with dashboard_fixture.sluice.store.read_session() as session:
        return list(session.exec(select(Deployment).order_by(col(Deployment.id))))


def wrong(text: str) -> dict[str, str]:
    """Map each field with an error to its message."""
    found = re.findall(r'<p class="error" id="error-(\w+)">(.*?)</p>', text, re.S)
    return {field: html.unescape(message) for field, message in found}


def sign_in(dashboard_fixture: DashboardFixture, browser: TestClient, scope: str, grant: Grant | None = None) -> TestClient:
    _, token = apart(dashboard_fixture.sluice.auth.create("ada", scope, grant, None, SYSTEM))
    assert browser.post("/ui/sign-in", data={"token": token}).status_code == 303
    return browser


def test_overview_links_to_the_create_form_with_and_without_services(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    empty = admin_browser.get("/ui/").text
    assert "No services yet." in empty and empty.count('href="/ui/new"') == 2
    dashboard_fixture.service()
    assert admin_browser.get("/ui/").text.count('href="/ui/new"') == 1
    form = admin_browser.get("/ui/new?name=shop&image=shop%3A1")
    assert form.status_code == 200
    assert 'value="shop"' in form.text and 'value="shop:1"' in form.text


def test_plan_of_a_new_service_is_shown_with_its_commands_without_deploying(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    answer = admin_browser.post("/ui/new", data={"step": "plan", **ANSWERS})
    assert answer.status_code == 200
    for shown in (
        "Deploy shop <span", "0 → 2", "start shop-r1-1", '[{"path_prefix": "/shop"', "sluice deploy shop --set",
        "--image shop:1 --port 8000 --replicas 2 --note 'the first one'", '"port": 8000', "/deployments?wait=600",
    ):  # fmt: skip
        assert shown in html.unescape(answer.text), shown
    assert "hunter2" not in answer.text.replace('name="fields" value="' + html.escape(ANSWERS["fields"]), "")
    assert made(dashboard_fixture) == []
    assert admin_browser.post("/ui/new", data={"step": "change", **ANSWERS}).text.count("hunter2") == 1


def test_confirmed_new_service_is_deployed_and_redirects_to_its_deployment(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    plan = html.unescape(admin_browser.post("/ui/new", data={"step": "plan", **ANSWERS}).text)
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', plan))
    answer = admin_browser.post("/ui/new", data={"step": "do", **hidden})
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/deployments/1")
    (row,) = made(dashboard_fixture)
    assert (row.service, row.kind, row.note) == ("shop", "deploy", "the first one")
    assert row.body == {
        "image": "shop:1", "port": 8000, "replicas": 2, "routes": [{"path_prefix": "/shop"}],
        "environment": {"API_PASSWORD": "hunter2"},
    }  # fmt: skip
    assert dashboard_fixture.hinted == ["shop"]


@pytest.mark.parametrize(
    ("answers", "field", "said"),
    [
        ({}, "name", "starting with a letter"),
        ({"name": "Shop"}, "name", "starting with a letter"),
        ({"name": "shop_1"}, "name", "starting with a letter"),
        ({"name": "s" * 41}, "name", "at most 40"),
        ({"name": "<b>"}, "name", "starting with a letter"),
        ({"name": "web"}, "name", "a service with this name exists"),
        ({"name": "shop"}, "image", "is required"),
        ({"name": "shop", "image": "shop one"}, "image", ""),
        ({"name": "shop", "image": "shop:1", "port": "0"}, "port", "from 1 to 65535"),
        ({"name": "shop", "image": "shop:1", "port": "http"}, "port", "a whole number"),
        ({"name": "shop", "image": "shop:1", "replicas": "101"}, "replicas", "from 0 to 100"),
        ({"name": "shop", "image": "shop:1", "fields": "prot: 80"}, "fields", 'did you mean "port"'),
        ({"name": "shop", "image": "shop:1", "fields": "port: many"}, "port", "must be a whole number"),
        ({"name": "shop", "image": "shop:1", "fields": "{unfinished"}, "fields", "line 1"),
        ({"name": "shop", "image": "shop:1", "fields": "routes: [{path_prefix: /web}]"}, "fields", "web"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", ["plan", "do"])
def test_invalid_new_service_is_reported_beside_its_field(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient, answers: dict[str, str], field: str, said: str, step: str
) -> None:
    dashboard_fixture.service()
    answer = admin_browser.post("/ui/new", data={"step": step, **answers})
    assert answer.status_code == 422, answer.text
    assert said in wrong(answer.text)[field]
    assert f'aria-describedby="hint-{field} error-{field}" aria-invalid="true"' in answer.text
    for value in answers.values():
        assert html.escape(value, quote=False)[:200] in answer.text.replace("&#34;", '"')
    assert made(dashboard_fixture) == []


def test_taken_service_name_links_to_the_deploy_form_of_that_service(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    dashboard_fixture.service()
    assert 'href="/ui/services/web/deploy"' in admin_browser.post("/ui/new", data={"name": "web", "image": "web:2"}).text
    dashboard_fixture.change(Service, "web", removed=True)
    assert admin_browser.post("/ui/new", data={"step": "do", "name": "web", "image": "web:2"}).status_code == 303


@pytest.mark.parametrize("scope", ["read", "deploy"])
def test_create_form_requires_the_write_scope(
    dashboard_fixture: DashboardFixture, anonymous_browser: TestClient, scope: str
) -> None:
    sign_in(dashboard_fixture, anonymous_browser, scope)
    assert "/ui/new" not in anonymous_browser.get("/ui/").text
    assert anonymous_browser.get("/ui/new").status_code == 403
    for step in ("plan", "do"):
        refused = anonymous_browser.post("/ui/new", data={"step": step, **ANSWERS})
        assert refused.status_code == 403
        assert 'the scope "write" is needed' in html.unescape(refused.text)
    assert made(dashboard_fixture) == []
    with dashboard_fixture.sluice.store.read_session() as session:
        last = session.exec(select(Event).order_by(col(Event.id).desc())).first()
        assert last is not None and last.type == "refused"


def test_bound_token_creates_only_services_that_match_its_patterns(
    dashboard_fixture: DashboardFixture, anonymous_browser: TestClient
) -> None:
    sign_in(dashboard_fixture, anonymous_browser, "write", Grant(("pay-*",)))
    assert "Your token may create pay-*." in anonymous_browser.get("/ui/new").text
    refused = anonymous_browser.post("/ui/new", data={"step": "do", **ANSWERS})
    assert (refused.status_code, wrong(refused.text)) == (403, {"name": "your token may only create pay-*"})
    assert anonymous_browser.post("/ui/new", data={"step": "do", **ANSWERS, "name": "pay-shop"}).status_code == 303
    assert [row.service for row in made(dashboard_fixture)] == ["pay-shop"]


def test_create_from_another_site_is_refused(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    answer = admin_browser.post("/ui/new", data={"step": "do", **ANSWERS}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert made(dashboard_fixture) == []
