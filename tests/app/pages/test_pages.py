"""Every page is served, escapes foreign text in names and logs, and shows the true state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.pages.render import STATIC, TEMPLATES
from services.rollouts.state.recognition import UnknownContainer
from services.rollouts.state.runtime_status import CRASH_LOOPING
from services.store.tables import Deployment, Instance, Service
from tests.support.dashboard_fixture import DashboardFixture

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"' hx-get='/x' {{ 7777*7777 }}"
PAGES = ("/ui/", "/ui/services/web", "/ui/deployments/1", "/ui/sign-in", "/ui/sign-in?code=abc", "/ui/services/missing")


@pytest.fixture
def deploying(dashboard_fixture: DashboardFixture) -> int:
    dashboard_fixture.service()
    return dashboard_fixture.deployment()


@pytest.mark.parametrize("path", PAGES)
def test_pages_run_only_scripts_and_styles_of_their_own(deploying: int, admin_browser: TestClient, path: str) -> None:
    answer = admin_browser.get(path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:|hx-on|hx-vals=.js", answer.text)
    for source in re.findall(r'(?:src|href)="([^"#][^"]*)', answer.text):
        assert source.startswith("/ui/") or source == "http://gateway.test:8080/web"


def test_static_files_are_served_without_a_session(anonymous_browser: TestClient) -> None:
    for address in re.findall(r'(?:src|href)="(/ui/static/[^"]*)"', anonymous_browser.get("/ui/sign-in").text):
        answer = anonymous_browser.get(address)
        assert answer.status_code == 200, address
        assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "path", ["../main.py", "%2e%2e/settings.py", "vendor/../../main.py", "nothing.js", "vendor/README.md"]
)
def test_static_path_outside_the_directory_is_not_served(anonymous_browser: TestClient, path: str) -> None:
    assert anonymous_browser.get(f"/ui/static/{path}").status_code in (303, 404)


def test_overview_shows_services_and_deployments_in_progress(deploying: int, admin_browser: TestClient) -> None:
    text = admin_browser.get("/ui/").text
    assert '<a href="/ui/services/web">web</a>' in text
    assert "3 of 3" in text
    assert f"/ui/deployments/{deploying}" in text
    assert "0 of 3 new instances serve" in text


def test_overview_reports_an_engine_that_does_not_answer(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    assert "No services yet" in admin_browser.get("/ui/").text
    dashboard_fixture.sluice.readiness.report("engine", "connection refused")
    assert "The engine does not answer" in admin_browser.get("/ui/").text


def test_service_page_shows_instances_revisions_deployments_and_warnings(
    dashboard_fixture: DashboardFixture, deploying: int, admin_browser: TestClient
) -> None:
    dashboard_fixture.sluice.runtime_status.set_warnings(
        "web", [{"code": "no_healthcheck", "message": "any answer below 500 counts"}]
    )
    dashboard_fixture.sluice.runtime_status.set_in_flight({"web-r1-2": 41})
    text = admin_browser.get("/ui/services/web").text
    for shown in ("web-r1-1", "web-r2-3", "web:1", "any answer below 500 counts", "http://gateway.test:8080/web", ">41<"):
        assert shown in text, shown


def test_deployment_page_shows_its_progress_and_the_possible_actions(
    dashboard_fixture: DashboardFixture, deploying: int, admin_browser: TestClient
) -> None:
    dashboard_fixture.change(Deployment, deploying, traffic=[{"revision": 2, "percent": 40}, {"revision": 1, "percent": 60}])
    text = admin_browser.get(f"/ui/deployments/{deploying}").text
    for shown in ("r1 → r2", "40 %", "60 %", "deploy requested by ci", "web-r2-3", "3f2a9c1"):
        assert shown in text, shown
    assert re.findall(r'action="/ui/deployments/1/(\w+)"', text) == ["pause", "abort"]


def test_deployment_page_names_its_group_and_its_dependencies(
    dashboard_fixture: DashboardFixture, deploying: int, admin_browser: TestClient
) -> None:
    dashboard_fixture.service("api")
    waits = [{"deployment": deploying, "required": True}]
    text = admin_browser.get(f"/ui/deployments/{dashboard_fixture.deployment('api', group=5, depends_on=waits)}").text
    assert '<a href="/ui/history?group=5">group 5</a>' in text
    assert f'<a href="/ui/deployments/{deploying}">#{deploying}</a>' in text
    assert ">Group<" not in admin_browser.get(f"/ui/deployments/{deploying}").text


def test_service_without_a_successful_deployment_is_shown_as_never_deployed(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    dashboard_fixture.service(replicas=1)
    dashboard_fixture.change(Service, "web", revision=None)
    dashboard_fixture.change(Instance, "web-r1-1", status="starting")
    for path in ("/ui/", "/ui/services/web"):
        text = admin_browser.get(path).text
        assert ("never deployed" in text, ">stopped<" in text) == (True, False)


def states(text: str) -> list[tuple[str, str]]:
    """Return name and state of each row of the overview, in its order."""
    return re.findall(r'data-name="(\w+) [^"]*" data-state="(\w+)"', text)


def chips(text: str) -> dict[str, tuple[str, int]]:
    """Return text → address and number of each filter of the overview."""
    found = re.findall(r'<a class="chip [^"]*" href="([^"]*)"[^>]*><strong>(\d+)</strong> ([^<]*)</a>', text)
    return {word: (address.replace("&amp;", "&"), int(number)) for address, number, word in found}


def test_overview_is_sorted_by_state_and_name_and_counts_the_states(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    for name in ("api", "auth", "cart", "mail", "shop", "team", "user", "zeta"):
        dashboard_fixture.service(name)
    for slot in (1, 2, 3):
        dashboard_fixture.change(Instance, f"zeta-r1-{slot}", status="unhealthy")
    dashboard_fixture.change(Instance, "user-r1-1", status="unhealthy")
    dashboard_fixture.sluice.runtime_status.set_warnings("team", [CRASH_LOOPING])
    dashboard_fixture.deployment("shop", status="paused")
    dashboard_fixture.deployment("mail", status="rolled_back")
    dashboard_fixture.deployment("cart")
    dashboard_fixture.change(Service, "auth", replicas=0)
    for slot in (1, 2, 3):
        dashboard_fixture.change(Instance, f"auth-r1-{slot}", status="stopped")
    text = admin_browser.get("/ui/").text
    assert states(text) == [
        ("zeta", "down"),
        ("user", "unhealthy"),
        ("team", "crash_looping"),
        ("shop", "paused"),
        ("mail", "deployment_failed"),
        ("cart", "deploying"),
        ("api", "serving"),
        ("auth", "stopped"),
    ]
    assert text.count('class="service needs"') == 5
    problems = "/ui/?state=down&state=unhealthy&state=crash_looping&state=paused&state=deployment_failed"
    assert list(chips(text).items()) == [
        ("all", ("/ui/", 8)),
        ("needs attention", (problems, 5)),
        ("down", ("/ui/?state=down", 1)),
        ("unhealthy", ("/ui/?state=unhealthy", 1)),
        ("crash looping", ("/ui/?state=crash_looping", 1)),
        ("paused", ("/ui/?state=paused", 1)),
        ("deployment failed", ("/ui/?state=deployment_failed", 1)),
        ("deploying", ("/ui/?state=deploying", 1)),
        ("serving", ("/ui/?state=serving", 1)),
        ("stopped", ("/ui/?state=stopped", 1)),
    ]
    assert ">crash looping<" in admin_browser.get("/ui/services/team").text


def test_overview_of_services_that_all_serve_has_no_filter_for_problems(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    assert chips(admin_browser.get("/ui/").text) == {}
    dashboard_fixture.service("web")
    assert chips(admin_browser.get("/ui/").text) == {"all": ("/ui/", 1), "serving": ("/ui/?state=serving", 1)}


def test_failed_instance_is_shown_with_its_log_and_reason(
    dashboard_fixture: DashboardFixture, deploying: int, admin_browser: TestClient
) -> None:
    dashboard_fixture.change(
        Instance, "web-r2-1", status="failed", failed_deployment=deploying, exit_code=3, failure="exited too early",
        log_tail="no DATABASE_URL",
    )  # fmt: skip
    text = admin_browser.get(f"/ui/deployments/{deploying}").text
    for shown in ("exit code 3", "exited too early", "no DATABASE_URL"):
        assert shown in text, shown


def test_hostile_text_is_escaped_on_every_page(dashboard_fixture: DashboardFixture, admin_browser: TestClient) -> None:
    dashboard_fixture.service(image=HOSTILE, profile=HOSTILE)
    id = dashboard_fixture.deployment(
        message=HOSTILE, note=HOSTILE, image=HOSTILE, reason=HOSTILE, created_by_name=HOSTILE, profile=HOSTILE,
        strategy=HOSTILE, warnings=[{"code": HOSTILE, "message": HOSTILE}],
    )  # fmt: skip
    dashboard_fixture.tell(id, "probe", HOSTILE)
    dashboard_fixture.change(
        Instance, "web-r2-1", status="failed", failed_deployment=id, failure=HOSTILE, log_tail=f"</pre>{HOSTILE}",
        last_probe={"ok": False, "status": 500, "error": HOSTILE, "at": None},
    )  # fmt: skip
    dashboard_fixture.sluice.readiness.report("engine", HOSTILE)
    dashboard_fixture.sluice.runtime_status.set_warnings("web", [{"code": HOSTILE, "message": HOSTILE}])
    dashboard_fixture.sluice.runtime_status.set_unknown_containers([UnknownContainer("web-r1-1", HOSTILE)])
    for path in ("/ui/", "/ui/services/web", f"/ui/deployments/{id}"):
        text = admin_browser.get(path).text
        assert "alert(1)" in text
        assert "<script>" not in text
        assert "<img" not in text
        assert "</pre>&lt;" not in text
        assert "60481729" not in text
    for name in (HOSTILE, "..%2f..", "web%0d%0a", "x" * 5000):
        answer = admin_browser.get("/ui/services/" + name.replace("/", "%2f").replace("?", "%3f").replace("#", "%23"))
        assert answer.status_code == 404
        assert "<script>" not in answer.text


@pytest.mark.parametrize("id", ["0", "2", "-1", "abc", "9" * 30, "1.5", "²", "%00"])
def test_unknown_deployment_is_a_404_page(deploying: int, admin_browser: TestClient, id: str) -> None:
    answer = admin_browser.get(f"/ui/deployments/{id}")
    assert answer.status_code == 404
    assert "Page not found" in answer.text


def test_pages_escape_by_default() -> None:
    for template in TEMPLATES.rglob("*.html"):
        assert "|safe" not in template.read_text().replace(" ", ""), template
        assert "autoescape" not in template.read_text(), template


def test_vendored_files_name_their_version_and_licence() -> None:
    vendored = STATIC / "vendor"
    reported = (vendored / "README.md").read_text()
    for file in [*vendored.glob("*.js"), *vendored.glob("*.css")]:
        assert re.search(r"-\d+\.\d+\.\d+(\.min)?\.(js|css)$", file.name)
        assert f"`{file.name}`" in reported
    assert "Zero-Clause BSD" in Path(vendored / "htmx-LICENSE").read_text()
    assert "Apache License" in Path(vendored / "swagger-ui-LICENSE").read_text()
