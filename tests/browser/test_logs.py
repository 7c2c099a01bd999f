"""Logs in a browser: lines arrive live and are searched; an ended session redirects to the sign-in page and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from sqlmodel import delete

from app.api import api
from services.engine.port import InstanceSpec
from services.store.tables import BrowserSession as Opened
from tests.browser.conftest import Complaints, sign_in
from tests.support.dashboard_fixture import DashboardFixture, apart
from tests.support.dashboard_server import free_port, serving
from tests.support.fakes.engine import FakeEngine

pytestmark = pytest.mark.browser
HERE = "/ui/services/web/logs"


def engine(dashboard_fixture: DashboardFixture) -> FakeEngine:
    assert isinstance(dashboard_fixture.sluice.engine, FakeEngine)
    return dashboard_fixture.sluice.engine


async def start(dashboard_fixture: DashboardFixture, slot: int) -> None:
    image = await dashboard_fixture.sluice.engine.pull("web:1")
    await dashboard_fixture.sluice.engine.start(
        InstanceSpec(
            id=f"web-r1-{slot}", service="web", revision=1, deployment=1, slot=slot, hash="h", image_id=image.id,
            address=f"10.99.0.{slot}", port=None,
        )
    )  # fmt: skip


def write(dashboard_fixture: DashboardFixture, instance: str, text: str) -> None:
    """Write a log line in the server's own event loop, which the fake engine uses."""
    assert dashboard_fixture.loop is not None
    dashboard_fixture.loop.call_soon_threadsafe(engine(dashboard_fixture).write, instance, text)


@pytest.fixture
def writing(dashboard_fixture: DashboardFixture) -> Iterator[tuple[DashboardFixture, str]]:
    """Serve the dashboard with the API; web-r1-1 has written one line."""
    dashboard_fixture.app.include_router(api)
    engine(dashboard_fixture).add_image("web:1")
    apart(start(dashboard_fixture, 1))
    engine(dashboard_fixture).write("web-r1-1", "GET /first")
    with serving(dashboard_fixture, free_port()) as address:
        yield dashboard_fixture, address


def test_log_lines_arrive_live_and_are_searched(writing: tuple[DashboardFixture, str], page: Page) -> None:
    dashboard_fixture, address = writing
    sign_in(page, dashboard_fixture, address, HERE)
    lines = page.locator("#lines li:visible")
    expect(lines).to_have_count(1)
    expect(page.locator("#following")).to_have_text("Live")
    write(dashboard_fixture, "web-r1-1", "GET /second <b>")
    expect(lines).to_have_count(2)
    expect(lines.last).to_contain_text("GET /second <b>")

    assert dashboard_fixture.loop is not None
    asyncio.run_coroutine_threadsafe(start(dashboard_fixture, 2), dashboard_fixture.loop).result(10)
    write(dashboard_fixture, "web-r1-2", "POST /third")
    dashboard_fixture.wake()
    expect(lines).to_have_count(3)
    assert lines.first.locator(".who").get_attribute("class") != lines.last.locator(".who").get_attribute("class")

    page.get_by_role("searchbox").fill("get")
    expect(lines).to_have_count(2)
    write(dashboard_fixture, "web-r1-1", "POST /fourth")
    write(dashboard_fixture, "web-r1-1", "GET /fifth")
    expect(lines).to_have_count(3)
    page.get_by_role("searchbox").fill("")
    expect(lines).to_have_count(5)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "web.log"
    assert "web-r1-2 | POST /third" in download.value.path().read_text()


def test_ended_session_redirects_the_logs_page_to_sign_in_and_back(
    writing: tuple[DashboardFixture, str], page: Page, complaints: Complaints
) -> None:
    dashboard_fixture, address = writing
    sign_in(page, dashboard_fixture, address, HERE)
    expect(page.locator("#following")).to_have_text("Live")
    dashboard_fixture.write(lambda session: session.exec(delete(Opened)) and None)
    write(dashboard_fixture, "web-r1-1", "hidden text")
    page.wait_for_url("**/ui/sign-in?next=*")
    assert "hidden text" not in page.content()
    page.get_by_label("Token").fill(dashboard_fixture.token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{HERE}")
    expect(page.locator("#lines li")).to_have_count(2)
    complaints[:] = [said for said in complaints if "401" not in said]


def test_token_is_created_and_revoked_by_keyboard(writing: tuple[DashboardFixture, str], page: Page) -> None:
    dashboard_fixture, address = writing
    sign_in(page, dashboard_fixture, address, "/ui/tokens")
    page.get_by_label("Name").fill("ci")
    page.get_by_label("Services").fill("web")
    page.get_by_role("button", name="Create token").press("Enter")
    expect(page.get_by_role("heading", name="The token “ci”")).to_be_visible()
    page.get_by_label("Revoke ci").press("Enter")
    page.get_by_role("button", name="Revoke “ci” now").press("Enter")
    expect(page.locator("#token-2")).to_have_count(0)
