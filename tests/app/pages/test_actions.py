"""Actions on a deployment from its page."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from services.actor import SYSTEM
from services.grant import Grant
from services.store.tables import Deployment, Event
from tests.support.dashboard_fixture import DashboardFixture, apart


@pytest.fixture
def deploying(dashboard_fixture: DashboardFixture) -> int:
    dashboard_fixture.service()
    return dashboard_fixture.deployment()


def status(dashboard_fixture: DashboardFixture, id: int) -> str:
    with dashboard_fixture.sluice.store.read_session() as session:
        row = session.get(Deployment, id)
        assert row is not None
        return row.status


def test_deployment_page_pauses_resumes_and_aborts(
    dashboard_fixture: DashboardFixture, deploying: int, admin_browser: TestClient
) -> None:
    answer = admin_browser.post(f"/ui/deployments/{deploying}/pause")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/ui/deployments/{deploying}")
    assert status(dashboard_fixture, deploying) == "paused"
    assert dashboard_fixture.hinted == ["web"]
    admin_browser.post(f"/ui/deployments/{deploying}/resume")
    assert status(dashboard_fixture, deploying) == "progressing"
    admin_browser.post(f"/ui/deployments/{deploying}/abort")
    assert status(dashboard_fixture, deploying) == "rolling_back"


def test_abort_event_names_the_session_and_its_user(
    dashboard_fixture: DashboardFixture, deploying: int, admin_browser: TestClient
) -> None:
    admin_browser.post(f"/ui/deployments/{deploying}/abort")
    with dashboard_fixture.sluice.store.read_session() as session:
        did = [(row.actor_kind, row.actor_name) for row in session.exec(select(Event)) if row.actor_kind]
    assert ("session", "admin") in did


def test_retry_redirects_to_the_new_deployment(
    dashboard_fixture: DashboardFixture, deploying: int, admin_browser: TestClient
) -> None:
    dashboard_fixture.change(Deployment, deploying, status="failed", body={"image": "web:2"})
    answer = admin_browser.post(f"/ui/deployments/{deploying}/retry")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/ui/deployments/{deploying + 1}")


def test_action_that_the_state_does_not_allow_is_reported_on_the_page(
    dashboard_fixture: DashboardFixture, deploying: int, admin_browser: TestClient
) -> None:
    dashboard_fixture.change(Deployment, deploying, status="succeeded")
    answer = admin_browser.post(f"/ui/deployments/{deploying}/pause")
    assert answer.status_code == 409
    assert "pause not possible" in answer.text
    assert f'hx-sse:connect="/ui/deployments/{deploying}/stream"' in answer.text


def test_action_from_another_site_is_refused(
    dashboard_fixture: DashboardFixture, deploying: int, admin_browser: TestClient
) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "", "Origin": "http://evil.test"},
    ):
        assert admin_browser.post(f"/ui/deployments/{deploying}/abort", headers=headers).status_code == 403
    assert status(dashboard_fixture, deploying) == "progressing"


def test_action_without_a_session_is_redirected_to_the_sign_in_page(
    dashboard_fixture: DashboardFixture, deploying: int, anonymous_browser: TestClient
) -> None:
    answer = anonymous_browser.post(f"/ui/deployments/{deploying}/abort")
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/sign-in?next=%2Fui%2F")
    assert status(dashboard_fixture, deploying) == "progressing"


def test_read_token_sees_no_buttons_and_is_refused(
    dashboard_fixture: DashboardFixture, deploying: int, anonymous_browser: TestClient
) -> None:
    _, token = apart(dashboard_fixture.sluice.auth.create("eyes", "read", None, None, SYSTEM))
    anonymous_browser.post("/ui/sign-in", data={"token": token})
    assert "/abort" not in anonymous_browser.get(f"/ui/deployments/{deploying}").text
    answer = anonymous_browser.post(f"/ui/deployments/{deploying}/abort")
    assert answer.status_code == 403
    assert "deploy" in answer.text
    assert status(dashboard_fixture, deploying) == "progressing"


def test_token_of_other_services_is_refused(
    dashboard_fixture: DashboardFixture, deploying: int, anonymous_browser: TestClient
) -> None:
    _, token = apart(dashboard_fixture.sluice.auth.create("api-ci", "deploy", Grant(("api",)), None, SYSTEM))
    anonymous_browser.post("/ui/sign-in", data={"token": token})
    assert anonymous_browser.post(f"/ui/deployments/{deploying}/abort").status_code == 403
    assert status(dashboard_fixture, deploying) == "progressing"


@pytest.mark.parametrize(("bound", "offered"), [("api", False), ("w*", True)])
def test_bound_token_is_offered_actions_on_its_own_services_only(
    dashboard_fixture: DashboardFixture, deploying: int, anonymous_browser: TestClient, bound: str, offered: bool
) -> None:
    _, token = apart(dashboard_fixture.sluice.auth.create("team", "deploy", Grant((bound,)), None, SYSTEM))
    anonymous_browser.post("/ui/sign-in", data={"token": token})
    assert ("/abort" in anonymous_browser.get(f"/ui/deployments/{deploying}").text) == offered
    assert ("/ui/services/web/scale" in anonymous_browser.get("/ui/services/web").text) == offered


@pytest.mark.parametrize("path", ["/ui/deployments/99/abort", "/ui/deployments/x/abort"])
def test_action_on_an_unknown_deployment_is_404(admin_browser: TestClient, path: str) -> None:
    assert admin_browser.post(path).status_code == 404
