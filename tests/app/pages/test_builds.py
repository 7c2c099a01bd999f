"""The page of a build, the builds on a service's page, and cancelling a build."""

from __future__ import annotations

import html
import re
from functools import partial

import pytest
from fastapi.testclient import TestClient
from sqlmodel import col, select

from services.actor import SYSTEM
from services.grant import Grant
from services.store.tables import Build, Deployment, Event, Revision
from tests.support.dashboard_fixture import DashboardFixture, apart

ENDLESS = "FROM scratch\nRUN echo begun\nRUN sleep 600\n"


def begin(dashboard_fixture: DashboardFixture, browser: TestClient) -> int:
    """Start a build that runs until it is cancelled, in the browser's own event loop."""
    assert browser.portal is not None
    number: int = browser.portal.call(partial(dashboard_fixture.begin_build, ENDLESS))
    return number


def status(dashboard_fixture: DashboardFixture, id: int) -> tuple[str, str | None]:
    with dashboard_fixture.sluice.store.read_session() as session:
        row = session.get_one(Build, id)
        return row.status, row.reason


def test_finished_build_shows_its_log_and_links_to_the_deploy_form(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    dashboard_fixture.service()
    number = dashboard_fixture.built(image="web:made", log="Step 1/1 : FROM scratch\n<b>done</b>\n", target="run")
    text = admin_browser.get(f"/ui/builds/{number}").text
    for shown in ("succeeded", "web:made", "&lt;b&gt;done&lt;/b&gt;", f'href="/builds/{number}/log"', "40 s", "run"):
        assert shown in text, shown
    assert 'href="/ui/services/web/deploy?image=web%3Amade"' in text
    assert "/cancel" not in text and "data-stream" not in text
    form = admin_browser.get("/ui/services/web/deploy?image=web%3Amade").text
    assert 'value="web:made"' in form
    found = admin_browser.get(f"/ui/builds/{number}?q=STEP").text
    assert "Step 1/1" in found and "done" not in found


def test_build_of_a_new_service_links_to_the_create_form(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    number = dashboard_fixture.built("shop", image="shop:made")
    text = html.unescape(admin_browser.get(f"/ui/builds/{number}").text)
    assert "/ui/new?name=shop&image=shop%3Amade" in text and 'href="/ui/services/shop"' not in text
    assert 'value="shop:made"' in admin_browser.get("/ui/new?name=shop&image=shop%3Amade").text


def test_build_page_shows_the_end_of_a_long_log(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    number = dashboard_fixture.built(log="".join(f"line {count}\n" for count in range(6000)))
    text = admin_browser.get(f"/ui/builds/{number}").text
    assert "Only the end of the log is shown." in text
    assert text.count('<span class="said">') == 5000 and "line 5999<" in text and "line 999<" not in text


def test_running_build_is_followed_and_cancelled_and_its_event_names_the_user(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    dashboard_fixture.service()
    number = begin(dashboard_fixture, admin_browser)
    for page in (f"/ui/builds/{number}", "/ui/services/web"):
        assert f'action="/ui/builds/{number}/cancel"' in admin_browser.get(page).text
    assert f'data-stream="/builds/{number}/log"' in admin_browser.get(f"/ui/builds/{number}").text
    answer = admin_browser.post(f"/ui/builds/{number}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/ui/builds/{number}")
    assert status(dashboard_fixture, number) == ("failed", "cancelled")
    assert "Cancelled" in admin_browser.get(f"/ui/builds/{number}").text
    with dashboard_fixture.sluice.store.read_session() as session:
        reported = session.exec(select(Event).where(Event.service == "web").order_by(col(Event.id).desc())).first()
        assert reported is not None and (reported.type, reported.actor_kind, reported.actor_name) == (
            "build_failed",
            "session",
            "admin",
        )


def test_cancel_of_a_finished_build_is_refused(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    number = dashboard_fixture.built()
    answer = admin_browser.post(f"/ui/builds/{number}/cancel")
    assert answer.status_code == 409
    assert f"build {number} of web has succeeded: cannot be cancelled" in answer.text


@pytest.mark.parametrize(("scope", "grant"), [("read", None), ("write", Grant(("api",)))])
def test_token_without_the_scope_sees_no_cancel_button_and_is_refused(
    dashboard_fixture: DashboardFixture, anonymous_browser: TestClient, scope: str, grant: Grant | None
) -> None:
    _, token = apart(dashboard_fixture.sluice.auth.create("eyes", scope, grant, None, SYSTEM))
    anonymous_browser.post("/ui/sign-in", data={"token": token})
    dashboard_fixture.service()
    number = begin(dashboard_fixture, anonymous_browser)
    for page in (f"/ui/builds/{number}", "/ui/services/web"):
        assert "/cancel" not in anonymous_browser.get(page).text
    answer = anonymous_browser.post(f"/ui/builds/{number}/cancel")
    assert answer.status_code == 403
    assert status(dashboard_fixture, number)[1] is None
    assert anonymous_browser.portal is not None
    anonymous_browser.portal.call(dashboard_fixture.sluice.build_manager.close)


def test_cancel_from_another_site_is_refused(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    number = begin(dashboard_fixture, admin_browser)
    answer = admin_browser.post(f"/ui/builds/{number}/cancel", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403 and status(dashboard_fixture, number)[1] is None
    admin_browser.post(f"/ui/builds/{number}/cancel")


@pytest.mark.parametrize("id", ["99", "x", "9" * 30, "-1", "²"])
def test_unknown_build_is_404(admin_browser: TestClient, id: str) -> None:
    assert admin_browser.get(f"/ui/builds/{id}").status_code == 404
    assert admin_browser.post(f"/ui/builds/{id}/cancel").status_code == 404


def test_service_page_lists_its_newest_builds_only(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    dashboard_fixture.service()
    assert "<h2>Builds</h2>" not in admin_browser.get("/ui/services/web").text
    for count in range(6):
        dashboard_fixture.built(
            image=f"web:{count}", **({"status": "failed", "message": "no such file"} if count == 5 else {})
        )
    dashboard_fixture.built("api", image="api:0")
    text = admin_browser.get("/ui/services/web").text
    rows = re.findall(r'<tr id="build-(\d+)"', text)
    assert rows == ["6", "5", "4", "3", "2"]
    assert "no such file" in text and "api:0" not in text
    assert 'href="/ui/services/web/deploy?image=web%3A4"' in text


def test_service_page_shows_its_links_in_both_directions(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    dashboard_fixture.service("web", effective={"image": "web:1", "links": ["api", "gone"]})
    dashboard_fixture.service("api")
    web, api = (html.unescape(admin_browser.get(f"/ui/services/{name}").text) for name in ("web", "api"))
    assert re.search(r'Links to</dt><dd><a href="/ui/services/api">api</a>, gone <span[^>]*>unknown service', web)
    assert "Linked by" not in web
    assert re.search(r'Linked by</dt><dd><a href="/ui/services/web">web</a>', api)
    dashboard_fixture.change(Revision, ("web", 1), effective={"image": "web:1"})
    assert "Linked by" not in admin_browser.get("/ui/services/api").text


def test_service_page_shows_its_dependencies_and_dependents(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    for name in ("web", "api", "db"):
        dashboard_fixture.service(name)
    first = dashboard_fixture.deployment("db", group=4)
    second = dashboard_fixture.deployment("api", group=4, depends_on=[{"deployment": first, "required": True}])
    dashboard_fixture.deployment("web", group=4, depends_on=[{"deployment": second, "required": False}])
    dashboard_fixture.change(Deployment, second, status="succeeded")
    dashboard_fixture.service("other")
    text = html.unescape(admin_browser.get("/ui/services/api").text)
    assert re.search(
        r'Depends on</dt><dd><a href="/ui/services/db">db</a> <span[^>]*>in <a href="/ui/history\?group=4">', text
    )
    assert re.search(r'Needed by</dt><dd><a href="/ui/services/web">web</a> <span[^>]*>even if it fails', text)
    assert "Needed by" not in admin_browser.get("/ui/services/web").text
    assert "Depends on" not in admin_browser.get("/ui/services/other").text
