"""A browser and a dashboard for the tests; an error in the browser's console fails a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.network import isolated
from tests.support.dashboard_fixture import DashboardFixture
from tests.support.dashboard_server import free_port, serving

PATIENCE = 60.0
"""Longest time that a page may take; longer than a busy machine needs, as only a failing test waits so long. Seconds."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Launch a browser for one module; its event loop runs in this thread, where other tests' `asyncio.run` would fail."""
    with isolated() as arguments, sync_playwright() as playwright:
        browser = playwright.chromium.launch(**arguments)
        yield browser
        browser.close()


@pytest.fixture
def dashboard_fixture(tmp_path: Path) -> Iterator[DashboardFixture]:
    """Provide a service that serves, and a deployment of it that has just begun."""
    dashboard_fixture = DashboardFixture(tmp_path / "data")
    dashboard_fixture.service()
    dashboard_fixture.deployment()
    yield dashboard_fixture
    dashboard_fixture.close()


@pytest.fixture
def address(dashboard_fixture: DashboardFixture) -> Iterator[str]:
    with serving(dashboard_fixture, free_port()) as address:
        yield address


class Complaints(list[str]):
    """Errors and warnings of the browser's console and of the page's scripts."""

    def of(self, page: Page) -> Page:
        page.on("console", lambda message: self.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.append(str(error)))
        return page


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """Collect complaints and require none at the end; a test that breaks the connection on purpose clears them."""
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


def sign_in(page: Page, dashboard_fixture: DashboardFixture, address: str, after: str) -> None:
    """Sign in with a one-time link, as `sluice sign-in` and `make demo` print it."""
    page.goto(f"{address}/ui/sign-in?code={dashboard_fixture.link()}&next={after}")
    page.wait_for_url(f"{address}{after}")
