"""Tokens from the dashboard: created, shown once, used and revoked."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from services.actor import SYSTEM
from tests.app.pages.conftest import SAME_SITE
from tests.support.dashboard_fixture import DashboardFixture, apart


def secret_in(text: str) -> str:
    found = re.search(r'id="made"[^>]*>(sl_\w+)<', text)
    assert found is not None
    return found[1]


def test_token_is_created_shown_once_used_and_revoked(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    answers = {"name": "ci", "scope": "deploy", "services": "web, pay-*", "expires_in": "720h"}
    made = admin_browser.post("/ui/tokens", data=answers)
    assert made.status_code == 201
    secret = secret_in(made.text)
    listed = admin_browser.get("/ui/tokens").text
    assert secret not in listed
    assert "web, pay-*" in listed
    with TestClient(dashboard_fixture.app, follow_redirects=False, headers=SAME_SITE) as ci:
        assert ci.post("/ui/sign-in", data={"token": secret}).status_code == 303
        own = ci.get("/ui/tokens").text
        assert "web, pay-*" in own
        assert "All tokens" not in own, "for admins alone"
        assert admin_browser.post("/ui/tokens/2/revoke").headers["location"] == "/ui/tokens"
        assert ci.get("/ui/tokens").status_code == 303
    assert 'id="token-2"' not in admin_browser.get("/ui/tokens").text


@pytest.mark.parametrize(
    ("answers", "field", "message"),
    [
        ({"name": ""}, "name", "must be 1 to 64"),
        ({"name": "<b>"}, "name", "must be 1 to 64"),
        ({"services": "Pay!"}, "services", "must be a service&#39;s name, or a pattern"),
        ({"services": ","}, "services", "must be a service&#39;s name, or a pattern"),
        ({"scope": "root"}, "scope", "must be &#39;read&#39;"),
        ({"expires_in": "soon"}, "expires_in", "duration"),
    ],
)
def test_token_form_reports_errors_beside_their_field_and_keeps_the_answers(
    admin_browser: TestClient, answers: dict[str, str], field: str, message: str
) -> None:
    given = {"name": "ci", "scope": "read", "services": "web", "expires_in": "24h", **answers}
    answer = admin_browser.post("/ui/tokens", data=given)
    assert answer.status_code == 422
    assert re.search(rf'id="error-{field}">[^<]*{re.escape(message)}', answer.text), answer.text
    for name in {"name", "services"} - answers.keys():
        assert f'value="{given[name]}"' in answer.text


def test_token_page_requires_admin_to_create_and_revoke(
    dashboard_fixture: DashboardFixture, anonymous_browser: TestClient
) -> None:
    _, token = apart(dashboard_fixture.sluice.auth.create("eyes", "write", None, None, SYSTEM))
    anonymous_browser.post("/ui/sign-in", data={"token": token})
    assert anonymous_browser.post("/ui/tokens", data={"name": "x", "scope": "admin"}).status_code == 403
    refused = anonymous_browser.post("/ui/tokens/1/revoke")
    assert refused.status_code == 403
    assert "admin" in refused.text
    assert dashboard_fixture.sluice.auth.principal(dashboard_fixture.token) is not None


def test_last_admin_token_cannot_be_revoked_on_the_page(admin_browser: TestClient) -> None:
    answer = admin_browser.post("/ui/tokens/1/revoke")
    assert answer.status_code == 409
    assert "last admin token" in answer.text
    assert admin_browser.post("/ui/tokens/99/revoke").status_code == 404
    assert admin_browser.post("/ui/tokens/x/revoke").status_code == 404


def test_token_creation_from_another_site_is_refused(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    answer = admin_browser.post("/ui/tokens", data={"name": "x", "scope": "admin"}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert 'name="x"' not in admin_browser.get("/ui/tokens").text


def test_sign_out_everywhere_ends_other_sessions_too(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    with TestClient(dashboard_fixture.app, follow_redirects=False, headers=SAME_SITE) as other:
        other.post("/ui/sign-in", data={"token": dashboard_fixture.token})
        assert other.get("/ui/tokens").status_code == 200
        admin_browser.post("/ui/sign-out", data={"everywhere": "true"})
        assert other.get("/ui/tokens").status_code == 303
