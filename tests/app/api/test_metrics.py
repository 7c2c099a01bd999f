"""/metrics of the application: what happens to a service shows at the next scrape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.app_fixture import AppFixture, build, eventually, living
from tests.support.prometheus_text import Samples


@pytest.fixture
def app_fixture(tmp_path: Path) -> Iterator[AppFixture]:
    with living(build(tmp_path)) as made:
        yield made


def scrape(app_fixture: AppFixture) -> Samples:
    return Samples(app_fixture.client.get("/metrics").text)


def test_instance_that_the_engine_restarts_is_counted(app_fixture: AppFixture) -> None:
    assert app_fixture.deploy(replicas=2).status_code == 200
    assert scrape(app_fixture).value("sluice_instance_restarts_total", service="web") == 0
    app_fixture.call(_kill, app_fixture, "web-r1-1")
    eventually(lambda: scrape(app_fixture).value("sluice_instance_restarts_total", service="web") == 1, "it is restarted")
    eventually(lambda: scrape(app_fixture).value("sluice_service_replicas_serving", service="web") == 2, "it serves again")


def test_removed_service_disappears_from_the_metrics(app_fixture: AppFixture) -> None:
    assert app_fixture.deploy().status_code == 200
    assert scrape(app_fixture).value("sluice_service_replicas_desired", service="web") == 1
    assert app_fixture.client.delete("/services/web", params={"wait": "20"}).status_code == 200
    samples = scrape(app_fixture)
    assert samples.names_with(service="web") == set()
    assert samples.value("sluice_deployment_duration_seconds_count", status="succeeded") == 2


async def _kill(app_fixture: AppFixture, instance: str) -> None:
    """Kill the process of an instance; its restart policy starts it again."""
    app_fixture.engine.kill(instance)
