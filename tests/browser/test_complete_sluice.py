"""The dashboard of a complete Sluice: its own API, store and controller; only the engine and the gateway are fakes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from app.server import server_of
from tests.support.app_fixture import READY, build, eventually
from tests.support.fakes.containers import Behaviour

pytestmark = pytest.mark.browser


@pytest.fixture
def api(tmp_path: Path) -> Iterator[httpx.Client]:
    """Provide an admin's client of a Sluice with the images web:1, web:2 (slow to start) and web:broken."""
    dashboard_fixture = build(tmp_path / "data")
    dashboard_fixture.image("web:1", "web:2", "web:broken")
    dashboard_fixture.engine.behave("web:2", Behaviour(start_takes=0.3))
    dashboard_fixture.engine.behave("web:broken", Behaviour(exits_at_once=3, log="no DATABASE_URL\n"))
    server = server_of(dashboard_fixture.app, dashboard_fixture.settings)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            eventually(lambda: server.started or not thread.is_alive(), "the server starts")
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            with httpx.Client(
                base_url=address, headers={"Authorization": f"Bearer {dashboard_fixture.token}"}, timeout=30
            ) as client:
                eventually(lambda: client.get("/readyz").status_code == 200, "everything answers")
                yield client
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive(), "an open page must not hold up the stop"


def deploy(api: httpx.Client, image: str, **parameters: Any) -> int:
    body = {"service": "web", "image": image, "replicas": 2, "port": 8000, "healthcheck": READY}
    answer = api.post("/deployments", params=parameters, json=body)
    assert answer.status_code in (200, 202), answer.text
    return int(answer.json()["id"])


def test_deployment_by_the_real_controller_is_followed_to_its_end(api: httpx.Client, page: Page) -> None:
    deploy(api, "web:1", wait=20)
    page.goto(api.post("/sign-in-links").json()["url"])
    expect(page.locator("#part-service-web")).to_contain_text("2 of 2")
    expect(page.locator("#link")).to_have_text("Live")
    page.evaluate("window.sameOne = true")

    second = deploy(api, "web:2")
    expect(page.locator("#part-service-web")).to_contain_text(f"deploy #{second}")
    expect(page.locator(f"#deployment-{second}")).to_contain_text("succeeded")
    expect(page.locator("#part-service-web")).to_contain_text("r2")
    assert page.evaluate("window.sameOne === true")

    broken = deploy(api, "web:broken")
    expect(page.locator(f"#deployment-{broken}")).to_contain_text("rolled back")
    page.get_by_role("link", name=f"#{broken}", exact=True).click()
    expect(page.locator("#part-deployment")).to_contain_text("unhealthy_instance")
    expect(page.locator("#part-failures pre").first).to_contain_text("no DATABASE_URL")
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("heading", name=f"web deploy #{broken + 1}")).to_be_visible()
    expect(page.locator("#part-deployment .head .pill")).to_have_text("rolled back")
    expect(page.get_by_role("link", name=f"#{broken}", exact=True)).to_be_visible()


def test_deployment_is_aborted_from_its_page(api: httpx.Client, page: Page) -> None:
    deploy(api, "web:1", wait=20)
    page.goto(api.post("/sign-in-links").json()["url"])
    never = {"test": ["CMD", "false"], "disable": None}
    id = api.post("/deployments", json={"service": "web", "image": "web:2", "healthcheck": never}).json()["id"]
    page.get_by_role("link", name=f"deploy #{id}").click()
    expect(page.locator("#part-timeline")).to_contain_text("starting")
    page.get_by_role("button", name="Abort").click()
    expect(page.locator("#part-deployment .head .pill")).to_have_text("aborted")
    expect(page.locator("#track-traffic")).to_contain_text("100 % r1")
