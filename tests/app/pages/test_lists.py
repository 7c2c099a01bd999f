"""History and audit are newest first, filtered and paged; an invalid filter is reported beside its field."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from app.pages import pagination
from services.actor import Actor
from services.store.events import append_event
from services.store.tables import Deployment
from tests.support.dashboard_fixture import DashboardFixture


@pytest.fixture
def busy(dashboard_fixture: DashboardFixture) -> DashboardFixture:
    """Provide two services with a deployment each, made by two users."""
    for service, by, status, group in (("web", "ci", "succeeded", None), ("api", "ada", "rolled_back", 5)):
        dashboard_fixture.service(service)
        id = dashboard_fixture.deployment(service, created_by_name=by, group=group)
        dashboard_fixture.change(Deployment, id, status=status, message=f"{service} {status}")
    return dashboard_fixture


def rows(text: str) -> list[str]:
    return re.findall(r'<tr id="deployment-(\d+)"', text)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ["2", "1"]),
        ("?service=web", ["1"]),
        ("?by=ada", ["2"]),
        ("?status=succeeded&kind=deploy", ["1"]),
        ("?kind=scale", []),
        ("?group=5", ["2"]),
        ("?group=99", []),
        ("?service=&kind=&status=&by=", ["2", "1"]),
    ],
)
def test_history_is_filtered_by_its_query(
    busy: DashboardFixture, admin_browser: TestClient, query: str, shown: list[str]
) -> None:
    answer = admin_browser.get(f"/ui/history{query}")
    assert answer.status_code == 200
    assert rows(answer.text) == shown
    assert 'aria-current="page">History' in answer.text


def test_invalid_filter_is_reported_beside_its_field_and_keeps_the_others(
    busy: DashboardFixture, admin_browser: TestClient
) -> None:
    answer = admin_browser.get("/ui/history?status=sucessful&by=ada")
    assert answer.status_code == 422
    assert 'id="error-status">&#34;sucessful&#34; is not one of these' in answer.text
    assert 'name="by" type="text" value="ada"' in answer.text
    assert 'id="error-group">must be the ID' in admin_browser.get("/ui/history?group=five").text
    wrong = admin_browser.get("/ui/audit?token=ci")
    assert (wrong.status_code, "must be the ID of a token" in wrong.text) == (422, True)
    assert admin_browser.get("/ui/history?cursor=nonsense").status_code == 422


def test_history_links_to_the_next_page_with_the_same_filters(
    busy: DashboardFixture, admin_browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "PAGE_SIZE", 1)
    first = admin_browser.get("/ui/history?kind=deploy").text
    assert rows(first) == ["2"]
    older = re.search(r'href="(/ui/history\?[^"]*)" rel="next"', first)
    assert older is not None
    second = admin_browser.get(older[1].replace("&amp;", "&")).text
    assert rows(second) == ["1"]
    assert 'rel="next"' not in second
    assert '<option value="deploy" selected>' in second


def test_audit_shows_the_user_action_address_and_token(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    actor = Actor("token", "ci", "192.0.2.7", 17)
    refused = {"method": "DELETE", "path": "/services/web", "status": 403, "code": "insufficient_scope"}
    dashboard_fixture.write(
        lambda session: append_event(session, 1e9, "refused", "no", service="web", data=refused, **actor.columns()) and None
    )
    text = admin_browser.get("/ui/audit").text
    for shown in ("signed in to the dashboard", "192.0.2.7", "DELETE /services/web → 403", "/ui/audit?token=17"):
        assert shown in text, shown
    assert "signed in" not in admin_browser.get("/ui/audit?token=17").text
    assert "192.0.2.7" in admin_browser.get("/ui/audit?actor=ci&type=refused&service=web&token=17").text
    assert "No matching events" in admin_browser.get("/ui/audit?actor=missing").text


def test_sign_in_redirects_back_to_the_filters(anonymous_browser: TestClient) -> None:
    answer = anonymous_browser.get("/ui/history?service=web&kind=deploy")
    assert answer.headers["location"] == "/ui/sign-in?next=%2Fui%2Fhistory%3Fservice%3Dweb%26kind%3Ddeploy"
    assert 'value="/ui/history?service=web&amp;kind=deploy"' in anonymous_browser.get(answer.headers["location"]).text
