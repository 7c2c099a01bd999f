"""Builds in a browser: the log is live, the keyboard cancels a build, and the image is deployed from the build's page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from playwright.sync_api import Page, expect

from services.engine.port import BuildSpec
from tests.browser.conftest import sign_in
from tests.support.dashboard_fixture import DashboardFixture
from tests.support.fakes.engine import FakeEngine

pytestmark = pytest.mark.browser


class Builder:
    """Fake build whose log lines come from the test; `None` ends it."""

    def __init__(self, dashboard_fixture: DashboardFixture) -> None:
        self.fixture = dashboard_fixture
        self.said: asyncio.Queue[str | None] = asyncio.Queue()

    async def build(self, spec: BuildSpec) -> AsyncGenerator[str]:
        while (line := await self.said.get()) is not None:
            yield line
        engine = self.fixture.sluice.engine
        assert isinstance(engine, FakeEngine)
        engine.add_image(spec.tag, pulled=False)

    def say(self, line: str | None) -> None:
        assert self.fixture.loop is not None
        self.fixture.loop.call_soon_threadsafe(self.said.put_nowait, line)

    def begin(self) -> int:
        assert self.fixture.loop is not None
        return asyncio.run_coroutine_threadsafe(self.fixture.begin_build("FROM scratch\n"), self.fixture.loop).result(10)


@pytest.fixture
def builder(dashboard_fixture: DashboardFixture, monkeypatch: pytest.MonkeyPatch) -> Builder:
    builder = Builder(dashboard_fixture)
    monkeypatch.setattr(dashboard_fixture.sluice.engine, "build", builder.build)
    return builder


def test_build_log_is_shown_live_and_its_image_is_deployed(
    dashboard_fixture: DashboardFixture, builder: Builder, address: str, page: Page
) -> None:
    number = builder.begin()
    sign_in(page, dashboard_fixture, address, f"/ui/builds/{number}")
    lines = page.locator("#lines li:visible")
    expect(page.locator("#following")).to_have_text("Live")
    expect(page.get_by_role("heading", name=f"web build #{number}")).to_be_visible()
    builder.say("Step 1/2 : FROM scratch")
    expect(lines).to_have_count(1)
    builder.say("<b>hello</b>")
    expect(lines.last).to_have_text("<b>hello</b>")
    page.get_by_role("searchbox").fill("step")
    expect(lines).to_have_count(1)
    builder.say("Step 2/2 : COPY . .")
    expect(lines).to_have_count(2)
    page.get_by_role("searchbox").fill("")
    builder.say(None)
    expect(page.locator(".head .pill")).to_have_text("succeeded")
    expect(page.locator("#following")).to_have_text("Ended")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    page.reload()
    expect(lines).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == f"build-{number}.log"
    page.get_by_role("link", name="Deploy").press("Enter")
    expect(page.get_by_label("Image")).to_have_value(page.url.partition("image=")[2].replace("%3A", ":"))


def test_build_appears_on_the_page_of_its_service_and_is_cancelled_by_keyboard(
    dashboard_fixture: DashboardFixture, builder: Builder, address: str, page: Page
) -> None:
    sign_in(page, dashboard_fixture, address, "/ui/services/web")
    expect(page.locator("#link")).to_have_text("Live")
    expect(page.get_by_role("heading", name="Builds")).to_have_count(0)
    number = builder.begin()
    expect(page.locator(f"#build-{number} .pill")).to_have_text("building")
    page.get_by_role("button", name=f"Cancel build {number}").press("Enter")
    page.wait_for_url(f"**/ui/builds/{number}")
    expect(page.locator(".head .pill")).to_have_text("failed")
    expect(page.get_by_text("Cancelled", exact=True)).to_be_visible()


def test_build_log_resumes_after_an_interruption(
    dashboard_fixture: DashboardFixture, builder: Builder, address: str, page: Page
) -> None:
    number = builder.begin()
    builder.say("one")
    sign_in(page, dashboard_fixture, address, f"/ui/builds/{number}")
    lines = page.locator("#lines li")
    expect(lines).to_have_count(1)
    assert dashboard_fixture.loop is not None
    dashboard_fixture.loop.call_soon_threadsafe(dashboard_fixture.sluice.stopping.set)
    expect(page.locator("#following")).to_have_text("Reconnecting…")
    builder.say("two")
    dashboard_fixture.loop.call_soon_threadsafe(dashboard_fixture.sluice.stopping.clear)
    expect(page.locator("#following")).to_have_text("Live")
    expect(lines).to_have_text(["one", "two"])
    builder.say(None)
    expect(page.locator("#following")).to_have_text("Ended")
