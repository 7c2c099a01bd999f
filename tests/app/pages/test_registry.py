"""The page of the Eureka registry."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient

from services.routing.port import RoutedService
from services.store.tables import Instance
from tests.support.dashboard_fixture import DashboardFixture, apart
from tests.support.eureka_payloads import registration


def words_of(admin_browser: TestClient) -> str:
    answer = admin_browser.get("/ui/registry")
    assert answer.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text.partition("<main")[2]).split())


def test_registry_page_shows_registrations_and_consumers(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    registry = dashboard_fixture.sluice.registry
    assert "No application is registered at port 8761" in words_of(admin_browser)
    assert "No consumer has fetched it recently" in words_of(admin_browser)
    apart(registry.register(registration("<b>odd</b>", "ORDERS"), "10.9.0.7"))
    for number in range(205):
        registry.consumers.fetched("10.203.0.9", f"client-{number}", 1, dashboard_fixture.sluice.clock.now())
    words = words_of(admin_browser)
    assert "ORDERS Consumers see 10.9.0.1:8080 UP . Not a service of Sluice. " in words
    assert "&lt;b&gt;odd&lt;/b&gt; UP 10.9.0.1:8080" in words
    assert "10.203.0.9 client-0 0.0 s old 30 s" in words
    assert "client-199" in words
    assert "client-200" not in words
    assert "and 5 more, in GET /registry" in words


def test_registry_page_links_an_application_to_its_service_and_instances(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    dashboard_fixture.service("web")
    registry = dashboard_fixture.sluice.registry
    registry.consumer_view.services["web"] = RoutedService("web", 8080, 20001)
    address = dashboard_fixture.write(lambda session: session.get_one(Instance, "web-r1-1").address)
    apart(registry.register(registration(), str(address)))
    page = admin_browser.get("/ui/registry").text
    assert "127.0.0.1:20001" in page
    assert 'href="/ui/services/web"' in page
    assert 'href="/ui/instances/web-r1-1/logs"' in page


def test_registry_page_says_when_the_registry_has_no_port(
    dashboard_fixture: DashboardFixture, admin_browser: TestClient
) -> None:
    dashboard_fixture.sluice.settings = dashboard_fixture.sluice.settings.model_copy(update={"eureka_port": 0})
    assert "SLUICE_EUREKA_PORT=0" in words_of(admin_browser)
