"""The dashboard in a browser while deployments run, connections break and updates arrive."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from sqlmodel import Session, select

from services.store.tables import BrowserSession as Opened
from services.store.tables import Deployment, Instance
from tests.browser.conftest import Complaints, sign_in
from tests.support.dashboard_fixture import DashboardFixture
from tests.support.dashboard_server import free_port, serving
from tests.support.seed_data import set_scene

pytestmark = pytest.mark.browser


def mark(page: Page) -> None:
    """Mark the page; a reload removes the mark."""
    page.evaluate("window.sameOne = true")


def marked(page: Page) -> bool:
    return bool(page.evaluate("window.sameOne === true"))


def serve(dashboard_fixture: DashboardFixture, count: int) -> None:
    """Let `count` new instances serve, and stop as many old ones."""
    for slot in range(1, count + 1):
        dashboard_fixture.change(Instance, f"web-r2-{slot}", status="serving", ready_at=dashboard_fixture.sluice.clock.now())
        dashboard_fixture.change(
            Instance, f"web-r1-{slot}", status="stopped", stopped_at=dashboard_fixture.sluice.clock.now()
        )
    progress = {"desired": 3, "ready": count, "serving": count, "old_serving": 3 - count, "draining": 0, "failed": 0}
    share = round(100 * count / 3)
    traffic = [{"revision": 2, "percent": share}, {"revision": 1, "percent": 100 - share}]
    dashboard_fixture.change(Deployment, 1, message=f"{count} of 3 new instances serve", progress=progress, traffic=traffic)


def test_sign_in_link_opens_the_dashboard(dashboard_fixture: DashboardFixture, address: str, page: Page) -> None:
    sign_in(page, dashboard_fixture, address, "/ui/")
    expect(page.get_by_role("heading", name="Services")).to_be_visible()
    expect(page.locator("#part-service-web")).to_contain_text("3 of 3")
    expect(page.locator("#link")).to_have_text("Live")
    page.get_by_role("link", name="deploy #1").click()
    expect(page.get_by_role("heading", name="web deploy #1")).to_be_visible()


def test_deployment_page_follows_a_deployment_to_its_end_without_a_reload(
    dashboard_fixture: DashboardFixture, address: str, page: Page
) -> None:
    sign_in(page, dashboard_fixture, address, "/ui/deployments/1")
    expect(page.locator("#link")).to_have_text("Live")
    mark(page)
    expect(page.locator("#part-deployment")).to_contain_text("0 of 3 serving")
    for count in (1, 2, 3):
        serve(dashboard_fixture, count)
        expect(page.locator("#part-deployment")).to_contain_text(f"{count} of 3 serving")
        expect(page.locator(f"#instance-web-r2-{count}")).to_contain_text("serving")
    now = dashboard_fixture.sluice.clock.now()
    dashboard_fixture.change(Deployment, 1, status="succeeded", message="all 3 instances serve", finished_at=now)
    dashboard_fixture.tell(1, "succeeded", "deployment 1 succeeded")
    expect(page.locator("#part-deployment .head .pill")).to_have_text("succeeded")
    expect(page.locator("#part-events")).to_contain_text("deployment 1 succeeded")
    expect(page.get_by_role("button", name="Abort")).to_have_count(0)
    assert marked(page)


def test_in_flight_count_is_updated_while_an_instance_drains(
    dashboard_fixture: DashboardFixture, address: str, page: Page
) -> None:
    sign_in(page, dashboard_fixture, address, "/ui/deployments/1")
    dashboard_fixture.change(Instance, "web-r1-1", status="draining")
    for count in (7, 3, 0):
        dashboard_fixture.sluice.runtime_status.set_in_flight({"web-r1-1": count})
        dashboard_fixture.wake()
        expect(page.locator("#instance-web-r1-1 .number")).to_have_text(str(count))


def test_opened_log_and_focused_button_stay_so_after_updates(
    dashboard_fixture: DashboardFixture, address: str, page: Page
) -> None:
    dashboard_fixture.change(
        Instance, "web-r2-1", status="failed", failed_deployment=1, exit_code=1, log_tail="no DATABASE_URL"
    )
    dashboard_fixture.change(
        Instance, "web-r2-2", status="failed", failed_deployment=1, exit_code=1, log_tail="nor this one"
    )
    sign_in(page, dashboard_fixture, address, "/ui/deployments/1")
    expect(page.locator("#link")).to_have_text("Live")
    second = page.locator("#failure-web-r2-2")
    second.locator("summary").click()
    page.get_by_role("button", name="Pause").focus()
    dashboard_fixture.change(
        Instance, "web-r2-3", status="failed", failed_deployment=1, exit_code=1, log_tail="nor the third"
    )
    dashboard_fixture.change(Deployment, 1, message="3 new instances failed")
    expect(page.locator("#failure-web-r2-3")).to_be_visible()
    expect(page.locator("#part-deployment")).to_contain_text("3 new instances failed")
    expect(second.locator("pre")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_be_focused()


def test_page_shows_that_it_reconnects_and_recovers_after_a_restart(
    tmp_path: Path, browser: Browser, page: Page, complaints: Complaints
) -> None:
    port = free_port()
    first = DashboardFixture(tmp_path)
    first.service()
    first.deployment()
    with serving(first, port) as address:
        sign_in(page, first, address, "/ui/deployments/1")
        expect(page.locator("#link")).to_have_text("Live")
        mark(page)
        began = time.monotonic()
    assert time.monotonic() - began < 3, "an open page must not hold up the stop"
    expect(page.locator("#link")).to_have_text("Reconnecting…")
    serve(first, 2)
    first.close()

    second = DashboardFixture(tmp_path)
    try:
        with serving(second, port):
            expect(page.locator("#link")).to_have_text("Live")
            expect(page.locator("#part-deployment")).to_contain_text("2 of 3 serving")
            serve(second, 3)
            expect(page.locator("#part-deployment")).to_contain_text("3 of 3 serving")
            assert marked(page)
    finally:
        second.close()
        complaints.clear()  # the browser logs each refused connection


@pytest.mark.parametrize("trouble", ["refused", "503"])
def test_stream_that_cannot_start_is_retried(
    dashboard_fixture: DashboardFixture, address: str, page: Page, complaints: Complaints, trouble: str
) -> None:
    failed: list[str] = []

    def fail_once(route: Route) -> None:
        if failed:
            route.continue_()
            return
        failed.append(route.request.url)
        if trouble == "503":
            route.fulfill(status=503, body="<h1>not yet</h1>", content_type="text/html")
        else:
            route.abort("connectionrefused")

    page.route("**/ui/stream", fail_once)
    sign_in(page, dashboard_fixture, address, "/ui/")
    expect(page.locator("#link")).to_have_text("Reconnecting…")
    expect(page.locator("#link")).to_have_text("Live")
    expect(page.locator("#part-service-web")).to_be_visible()
    assert failed
    complaints.clear()


def test_silent_connection_is_replaced(dashboard_fixture: DashboardFixture, address: str, page: Page) -> None:
    page.clock.install()
    sign_in(page, dashboard_fixture, address, "/ui/")
    expect(page.locator("#link")).to_have_text("Live")
    with page.expect_request("**/ui/stream"):
        page.clock.fast_forward(60_000)
    expect(page.locator("#link")).to_have_text("Live")


def test_ended_session_redirects_an_open_page_to_the_sign_in_page(
    dashboard_fixture: DashboardFixture, address: str, page: Page
) -> None:
    sign_in(page, dashboard_fixture, address, "/ui/deployments/1")
    expect(page.locator("#link")).to_have_text("Live")

    def expire(session: Session) -> None:
        for row in session.exec(select(Opened)):
            row.expires_at = dashboard_fixture.sluice.clock.now() - 1
            session.add(row)

    dashboard_fixture.write(expire)
    page.wait_for_url(f"{address}/ui/sign-in?next=/ui/deployments/1")
    page.get_by_label("Token").fill(dashboard_fixture.token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{address}/ui/deployments/1")


def test_deployment_is_paused_and_resumed_from_its_page(
    dashboard_fixture: DashboardFixture, address: str, page: Page
) -> None:
    sign_in(page, dashboard_fixture, address, "/ui/deployments/1")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#part-deployment .head .pill")).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#part-deployment .head .pill")).to_have_text("progressing")


def test_hostile_text_in_live_updates_is_escaped(dashboard_fixture: DashboardFixture, address: str, page: Page) -> None:
    sign_in(page, dashboard_fixture, address, "/ui/deployments/1")
    expect(page.locator("#link")).to_have_text("Live")
    words = "</pre><img src=x onerror='window.hurt=1'><hx-partial hx-target='body'>gone</hx-partial><script>hurt=1</script>"
    dashboard_fixture.change(Instance, "web-r2-1", status="failed", failed_deployment=1, exit_code=1, log_tail=words)
    dashboard_fixture.change(Deployment, 1, message=words)
    expect(page.locator("#failure-web-r2-1 pre")).to_have_text(words)
    expect(page.locator("#part-deployment")).to_contain_text(words)
    assert page.evaluate("window.hurt === undefined")


def test_pages_are_readable_without_scripts(dashboard_fixture: DashboardFixture, address: str, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/ui/sign-in?code={dashboard_fixture.link()}&next=/ui/deployments/1")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#part-timeline")).to_contain_text("web-r2-3")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_pages_fit_the_screen(
    dashboard_fixture: DashboardFixture, address: str, browser: Browser, complaints: Complaints, scheme: str, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page = complaints.of(context.new_page())
    sign_in(page, dashboard_fixture, address, "/ui/")
    for path in ("/ui/", "/ui/services/web", "/ui/deployments/1", "/ui/sign-in"):
        page.goto(address + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    infrastructure = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (infrastructure == "rgb(13, 19, 25)") is (scheme == "dark")
    context.close()


def test_action_from_an_outdated_tab_shows_the_conflict(
    dashboard_fixture: DashboardFixture, address: str, page: Page, complaints: Complaints
) -> None:
    page.route("**/stream", lambda route: route.abort())  # a tab that receives no updates
    sign_in(page, dashboard_fixture, address, "/ui/deployments/1")
    now = dashboard_fixture.sluice.clock.now()
    dashboard_fixture.change(Deployment, 1, status="succeeded", message="3 of 3 instances serve", finished_at=now)
    page.get_by_role("button", name="Abort").click()
    page.unroute("**/stream")
    expect(page.get_by_role("alert")).to_contain_text("deployment is succeeded: abort not possible")
    expect(page.locator("#part-deployment .head .pill")).to_have_text("succeeded")
    expect(page.get_by_role("button", name="Abort")).to_have_count(0)
    expect(page.locator("#link")).to_have_text("Live")
    complaints.clear()  # the aborted stream and the 409


def test_timeline_grows_with_time_and_the_title_shows_the_status(
    dashboard_fixture: DashboardFixture, address: str, page: Page
) -> None:
    sign_in(page, dashboard_fixture, address, "/ui/deployments/1")
    expect(page.locator("#link")).to_have_text("Live")
    expect(page).to_have_title("Progressing: web deploy #1")
    bar = page.locator("#instance-web-r2-1 rect").last
    before = float(bar.get_attribute("width") or 0)
    page.wait_for_function(
        "([bar, before]) => Number(bar.getAttribute('width')) > before + 5", arg=[bar.element_handle(), before]
    )
    dashboard_fixture.change(Deployment, 1, status="paused", message="paused; resume or abort")
    expect(page).to_have_title("Paused: web deploy #1")


def test_layout_does_not_shift_when_updates_arrive(dashboard_fixture: DashboardFixture, address: str, page: Page) -> None:
    sign_in(page, dashboard_fixture, address, "/ui/")
    expect(page.locator("#link")).to_have_text("Live")
    page.evaluate(
        """window.moved = 0;
        new PerformanceObserver(list => { for (const shift of list.getEntries()) window.moved += shift.value; })
            .observe({type: 'layout-shift', buffered: true})"""
    )
    for count in (1, 2, 3):
        serve(dashboard_fixture, count)
        expect(page.locator("#part-service-web")).to_contain_text(f"{count} of 3 new instances serve")
    assert page.evaluate("window.moved") < 0.1  # the limit that web.dev calls good


def test_service_page_draws_charts_of_the_last_hour(browser: Browser, tmp_path: Path, page: Page) -> None:
    dashboard_fixture = DashboardFixture(tmp_path / "scene")
    set_scene(dashboard_fixture)
    with serving(dashboard_fixture, free_port()) as address:
        sign_in(page, dashboard_fixture, address, "/ui/services/api")
        for chart in ("requests", "errors", "latency"):
            expect(page.locator(f"#chart-{chart} canvas")).to_be_visible()
        expect(page.locator("#part-figures tbody tr")).to_have_count(2)
        page.locator("#chart-latency .u-over").hover()
        expect(page.locator("#chart-latency + .readout")).to_contain_text("p95")
        page.goto(f"{address}/ui/")
        page.get_by_label("Filter services by name or state").fill("sea")
        expect(page.locator("#services > li:visible")).to_have_count(1)
        dashboard_fixture.change(Deployment, 3, message="still filtered")
        expect(page.locator("#services > li:visible")).to_have_count(1)
        page.goto("about:blank")  # before the server goes
    dashboard_fixture.close()


def test_chips_count_and_filter_services_and_the_address_keeps_the_filter(
    dashboard_fixture: DashboardFixture, address: str, page: Page
) -> None:
    for name in ("api", "mail"):
        dashboard_fixture.service(name, 1)
    chips, rows = page.locator(".chip"), page.locator("#services > li:visible .name")
    sign_in(page, dashboard_fixture, address, "/ui/")
    expect(page.locator("#link")).to_have_text("Live")
    expect(chips).to_have_text(["3 all", "1 deploying", "2 serving"])
    expect(page.locator(".chip[aria-current]")).to_have_text("3 all")
    mark(page)
    page.get_by_role("link", name="2 serving").click()
    expect(page).to_have_url(f"{address}/ui/?state=serving")
    expect(rows).to_have_text(["api", "mail"])
    expect(page.locator(".chip[aria-current]")).to_have_text("2 serving")

    dashboard_fixture.change(Instance, "mail-r1-1", status="unhealthy")
    expect(rows).to_have_text(["api"])
    expect(chips).to_have_text(["3 all", "1 needs attention", "1 down", "1 deploying", "1 serving"])
    expect(page.locator(".chip[aria-current]")).to_have_text("1 serving")
    page.get_by_role("link", name="1 needs attention").click()
    expect(rows).to_have_text(["mail"])
    assert marked(page)

    page.reload()
    expect(rows).to_have_text(["mail"])
    expect(page.locator(".chip[aria-current]")).to_have_text("1 needs attention")
    expect(page.locator("#link")).to_have_text("Live")
    dashboard_fixture.change(Instance, "mail-r1-1", status="serving")
    expect(page.get_by_text("No services match.")).to_be_visible()
    page.get_by_role("link", name="Show all").click()
    expect(page).to_have_url(f"{address}/ui/")
    expect(rows).to_have_text(["web", "api", "mail"])
    page.go_back()
    expect(rows).to_have_count(0)


def test_single_request_is_visible_in_the_charts(tmp_path: Path, page: Page) -> None:
    dashboard_fixture = DashboardFixture(tmp_path / "scene")
    set_scene(dashboard_fixture)
    lone = {key: [None, 0.05, None] for key in ("requests_per_second", "error_rate", "p50", "p95", "p99")}
    times = [f"2026-11-25T12:00:{second}0.000Z" for second in (0, 1, 2)]
    page.route(
        "**/services/api/figures*",
        lambda route: route.fulfill(json={"times": times, "revisions": [{"revision": 2, **lone}]}),
    )
    with serving(dashboard_fixture, free_port()) as address:
        sign_in(page, dashboard_fixture, address, "/ui/services/api")
        expect(page.locator("#chart-latency canvas")).to_be_visible()
        page.wait_for_function(
            """() => {
                const canvas = document.querySelector('#chart-latency canvas');
                const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
                const probe = document.body.appendChild(document.createElement('i'));
                probe.style.color = 'var(--series-1)';
                const wanted = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
                probe.remove();
                const alike = (at) => wanted.every((value, channel) => Math.abs(data[at + channel] - value) < 8);
                for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 200 && alike(at)) return true;
                return false;
            }"""
        )
        page.goto("about:blank")  # before the server goes
    dashboard_fixture.close()


def test_deploy_form_shows_a_plan_and_deploys_it(
    dashboard_fixture: DashboardFixture, address: str, page: Page, complaints: Complaints
) -> None:
    dashboard_fixture.change(Deployment, 1, status="succeeded", finished_at=dashboard_fixture.sluice.clock.now())
    sign_in(page, dashboard_fixture, address, "/ui/services/web")
    page.get_by_role("link", name="Deploy", exact=True).click()
    page.get_by_label("Image").fill("web:3")
    page.get_by_label("Other fields").fill("prot: 80")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#error-fields")).to_contain_text("prot: unknown field")
    complaints.clear()  # the 422
    page.get_by_label("Other fields").fill("environment:\n  LOG_LEVEL: debug")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("ins", has_text="debug")).to_be_visible()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("sluice deploy web --set ")
    page.get_by_role("button", name="Deploy").click()
    expect(page.get_by_role("heading", name="web deploy #2")).to_be_visible()
    expect(page.locator("#link")).to_have_text("Live")
