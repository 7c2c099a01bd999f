"""A browser, a dashboard to look at, and no patience for errors in the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.network import isolated
from tests.support.dashboard_fixture import DashboardFixture
from tests.support.dashboard_server import free_port, serving

PATIENCE = 60.0
"""Seconds that a page may take: longer than any busy machine needs, for only a failure waits for its end."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: while it stands, an event loop runs in this thread, and other tests' `asyncio.run` would fail."""
    with isolated() as arguments, sync_playwright() as playwright:
        browser = playwright.chromium.launch(**arguments)
        yield browser
        browser.close()


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[DashboardFixture]:
    """A service that serves, and a deployment of it that has just begun."""
    fixture = DashboardFixture(tmp_path / "data")
    fixture.service()
    fixture.deployment()
    yield fixture
    fixture.close()


@pytest.fixture
def address(fixture: DashboardFixture) -> Iterator[str]:
    with serving(fixture, free_port()) as address:
        yield address


class Complaints(list[str]):
    """What the console and the page's scripts complained of."""

    def of(self, page: Page) -> Page:
        page.on("console", lambda message: self.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.append(str(error)))
        return page


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Must be empty at the end; a test that breaks the connection on purpose clears it."""
    complaints = Complaints()
    yield complaints
    assert complaints == []


@pytest.fixture
def page(browser: Browser, complaints: Complaints) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)
    expect.set_options(timeout=PATIENCE * 1000)
    yield complaints.of(context.new_page())
    context.close()


def sign_in(page: Page, fixture: DashboardFixture, address: str, after: str) -> None:
    """By a one-time link, as `sluice sign-in` and `make demo` print it."""
    page.goto(f"{address}/ui/sign-in?code={fixture.link()}&next={after}")
    page.wait_for_url(f"{address}{after}")
