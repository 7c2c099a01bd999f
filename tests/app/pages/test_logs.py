"""The logs page without JavaScript: all lines, searchable, by instance, with secrets masked."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from services.engine.port import InstanceSpec
from services.store.tables import Instance
from tests.support.dashboard_fixture import DashboardFixture, apart
from tests.support.fakes.engine import FakeEngine

SECRET = {"environment": {"API_TOKEN": "hunter2-hunter2"}}


def engine(dashboard_fixture: DashboardFixture) -> FakeEngine:
    assert isinstance(dashboard_fixture.sluice.engine, FakeEngine)
    return dashboard_fixture.sluice.engine


@pytest.fixture
def writing(dashboard_fixture: DashboardFixture) -> DashboardFixture:
    """Provide two instances of web, each with a log line."""
    dashboard_fixture.service("web", 2, effective=SECRET)
    engine(dashboard_fixture).add_image("web:1")
    for slot, text in ((1, "GET /a <script>alert(1)</script>"), (2, "with hunter2-hunter2")):
        apart(_start(dashboard_fixture, slot))
        engine(dashboard_fixture).write(f"web-r1-{slot}", text)
    return dashboard_fixture


async def _start(dashboard_fixture: DashboardFixture, slot: int) -> None:
    image = await dashboard_fixture.sluice.engine.pull("web:1")
    await dashboard_fixture.sluice.engine.start(
        InstanceSpec(
            id=f"web-r1-{slot}", service="web", revision=1, deployment=1, slot=slot, hash="h", image_id=image.id,
            address=f"10.99.0.{slot}", port=None,
        )
    )  # fmt: skip


def test_log_lines_of_a_service_name_their_instance_and_mask_secrets(
    writing: DashboardFixture, admin_browser: TestClient
) -> None:
    text = admin_browser.get("/ui/services/web/logs").text
    assert 'class="who c0">web-r1-1' in text
    assert 'class="who c1">web-r1-2' in text
    assert "GET /a &lt;script&gt;" in text
    assert "with ***" in text
    assert "hunter2" not in text
    assert 'data-stream="/services/web/logs?tail=10000&amp;follow=true&amp;since=' in text
    assert 'href="/services/web/logs?tail=10000&amp;timestamps=true" download="web.log"' in text


def test_log_search_works_without_javascript(writing: DashboardFixture, admin_browser: TestClient) -> None:
    text = admin_browser.get("/ui/services/web/logs?q=get+%2FA").text
    assert "GET /a" in text
    assert "with ***" not in text
    assert "No line contains “zebra”" in admin_browser.get("/ui/services/web/logs?q=zebra").text
    wrong = admin_browser.get("/ui/services/web/logs?tail=lots&q=GET")
    assert wrong.status_code == 422
    assert 'id="error-tail"' in wrong.text
    assert 'value="GET"' in wrong.text


def test_instance_log_page_shows_the_stored_log_of_a_failed_instance(
    writing: DashboardFixture, admin_browser: TestClient
) -> None:
    text = admin_browser.get("/ui/instances/web-r1-2/logs").text
    assert "with ***" in text
    assert "GET /a" not in text
    writing.change(Instance, "web-r1-2", status="failed", stopped_at=1.0, log_tail="last words\nand a </ol>\n")
    gone = admin_browser.get("/ui/instances/web-r1-2/logs").text
    for shown in ("The instance was removed", "last words", "&lt;/ol&gt;"):
        assert shown in gone
    assert "data-stream" not in gone


def test_logs_page_reports_an_engine_that_does_not_answer(writing: DashboardFixture, admin_browser: TestClient) -> None:
    engine(writing).become_unreachable()
    answer = admin_browser.get("/ui/services/web/logs")
    assert answer.status_code == 200
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize("path", ["/ui/services/missing/logs", "/ui/instances/web-r9-9/logs", "/ui/instances/%00/logs"])
def test_log_of_an_unknown_service_or_instance_is_404(admin_browser: TestClient, path: str) -> None:
    assert admin_browser.get(path).status_code == 404
