"""Accessibility of every page: axe-core finds no serious violation, and the keyboard alone is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from services.store.tables import Service
from tests.browser.conftest import Complaints, sign_in
from tests.support.dashboard_fixture import DashboardFixture
from tests.support.dashboard_server import free_port, serving
from tests.support.seed_data import set_scene

pytestmark = pytest.mark.browser
AXE = (Path(__file__).parent / "vendor" / "axe-core-4.14.1.min.js").read_text()
PAGES = (
    "/ui/", "/ui/services/web", "/ui/deployments/1", "/ui/deployments/2", "/ui/deployments/3", "/ui/services/web/deploy",
    "/ui/services/web/scale?replicas=2", "/ui/services/api/restart", "/ui/services/web/changes?from=1&to=2",
    "/ui/services/missing", "/ui/services/web/logs", "/ui/instances/web-r1-1/logs", "/ui/history", "/ui/audit", "/ui/tokens",
    "/ui/registry", "/ui/sign-in", "/ui/new", "/ui/services/api", "/ui/builds/1", "/ui/builds/2", "/ui/builds/3",
    "/ui/history?service=web&kind=deploy&status=progressing&by=ci", "/ui/history?group=1", "/ui/history?by=missing",
    "/ui/history?kind=nothing&group=first",
)  # fmt: skip
RUN = """async () => (await axe.run(document, {resultTypes: ['violations']})).violations
    .filter(found => ['serious', 'critical'].includes(found.impact))
    .map(found => `${found.id}: ${found.nodes.map(node => node.html.slice(0, 160)).join(' | ')}`)"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DashboardFixture]:
    dashboard_fixture = DashboardFixture(tmp_path_factory.mktemp("scene"))
    set_scene(dashboard_fixture)
    yield dashboard_fixture
    dashboard_fixture.close()


@pytest.fixture(scope="module")
def shown(scene: DashboardFixture) -> Iterator[str]:
    with serving(scene, free_port()) as address:
        assert scene.loop is not None
        runs = scene.begin_build("FROM scratch\nRUN echo begun\nRUN sleep 600\n")
        assert asyncio.run_coroutine_threadsafe(runs, scene.loop).result(10) == 3
        yield address
        asyncio.run_coroutine_threadsafe(scene.sluice.build_manager.close(), scene.loop).result(10)


def findings(page: Page) -> list[str]:
    page.evaluate(AXE)
    found: list[str] = page.evaluate(RUN)
    return found


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 360)])
def test_axe_finds_no_serious_violation_on_any_page(
    scene: DashboardFixture, shown: str, browser: Browser, complaints: Complaints, scheme: str, width: int
) -> None:
    look: Any = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "reduced_motion": "reduce"}
    context = browser.new_context(**look)
    page = complaints.of(context.new_page())
    sign_in(page, scene, shown, "/ui/")
    found = {}
    for path in PAGES:
        page.goto(shown + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        found[path] = findings(page)
    page.goto(f"{shown}/ui/services/web/deploy")
    page.get_by_label("Instances").fill("many")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.locator("#error-replicas")).to_be_visible()
    found["a form refused"] = findings(page)
    page.goto(f"{shown}/ui/new?name=web&image=web:1")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.get_by_role("link", name="Deploy web")).to_be_visible()
    found["a name that is taken"] = findings(page)
    page.get_by_label("Name").fill("shop")
    page.get_by_label("Port").fill("8000")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.get_by_role("heading", name="Deploy shop plan")).to_be_visible()
    found["the plan of a new service"] = findings(page)
    page.goto(f"{shown}/ui/services/web/scale")
    page.get_by_label("Instances").fill("5")
    page.get_by_role("button", name="Show the plan").click()
    expect(page.get_by_role("heading", name="Scale web plan")).to_be_visible()
    found["a plan"] = findings(page)
    assert {path: what for path, what in found.items() if what} == {}
    complaints[:] = [
        line for line in complaints if "404" not in line and "422" not in line
    ]  # the test requested those pages
    context.close()


def test_keyboard_alone_scales_a_service_from_the_overview(scene: DashboardFixture, shown: str, page: Page) -> None:
    sign_in(page, scene, shown, "/ui/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    link = page.get_by_role("link", name="reports", exact=True)
    for _ in range(40):
        page.keyboard.press("Tab")
        if link.evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="reports", exact=True)).to_be_visible()
    page.get_by_role("link", name="Scale").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Instances")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Scale")).to_be_visible()
    page.get_by_role("button", name="Scale").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="reports scale #4")).to_be_visible()


def test_keyboard_alone_creates_the_first_service(dashboard_fixture: DashboardFixture, address: str, page: Page) -> None:
    dashboard_fixture.change(Service, "web", removed=True)
    sign_in(page, dashboard_fixture, address, "/ui/")
    assert findings(page) == []
    page.get_by_role("link", name="Deploy the first one").press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()
    for typed in ("shop", "shop:1"):
        page.keyboard.type(typed)
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Deploy shop plan")).to_be_visible()
    page.get_by_role("button", name="Deploy").press("Enter")
    expect(page.get_by_role("heading", name="shop deploy #2")).to_be_visible()
