"""Traffic metrics of a service, in the API and for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from services.clock import Clock
from services.routing.port import RoutingError
from services.routing.traffic_counts import GATEWAY_REVISION, CountKey
from services.traffic_metrics.sampler import TrafficSampler
from tests.support.app_fixture import READY, AppFixture, FakeGatewayRouter, build, living

NEWS = Counter(
    {
        CountKey("web", 1, 2, None): 90,
        CountKey("web", 1, 5, None): 10,
        CountKey("web", 1, None, 4): 100,
        CountKey("web", GATEWAY_REVISION, 5, None): 2,
    }
)


@pytest.fixture
def app_fixture(tmp_path: Path) -> Iterator[AppFixture]:
    made = build(tmp_path)
    made.image("web:1")
    with living(made):
        body = {"service": "web", "image": "web:1", "healthcheck": READY}
        assert made.client.post("/deployments?wait=20", json=body).status_code == 200
        yield made


@dataclass
class TenSecondClock:
    """Clock that is rounded down to the last ten-second boundary, so that a sample never covers future seconds."""

    clock: Clock

    def now(self) -> float:
        return self.clock.now() // 10 * 10


def sample(app_fixture: AppFixture, news: Counter[CountKey]) -> TrafficSampler:
    """Sample `news` as if ten seconds were over, apart from the sampler of the application."""
    gateway = FakeGatewayRouter(app_fixture.sluice.clock)
    gateway.news = news
    figures = TrafficSampler(app_fixture.sluice.store, TenSecondClock(app_fixture.sluice.clock), gateway)
    take(app_fixture, figures)
    return figures


def take(app_fixture: AppFixture, figures: TrafficSampler) -> None:
    """Take a sample in the server's own event loop."""
    portal = app_fixture.client.portal
    assert portal is not None
    portal.call(figures.sample)


def test_traffic_metrics_show_the_last_hour_of_a_service(app_fixture: AppFixture) -> None:
    sample(app_fixture, NEWS)
    reported = app_fixture.client.get("/services/web/figures").json()
    assert (reported["service"], reported["step"], len(reported["times"])) == ("web", 10, 360)
    assert (reported["totals"]["requests"], reported["totals"]["errors"]) == (102, 12)
    first, gateway = reported["revisions"]
    assert (first["revision"], gateway["revision"]) == (1, None)
    assert first["totals"]["error_rate"] == 0.1
    assert 0.006 < first["totals"]["p95"] < 0.009
    assert {len(first[series]) for series in ("requests_per_second", "error_rate", "p50", "p95", "p99")} == {360}
    assert max(filter(None, first["requests_per_second"])) == 10


@pytest.mark.parametrize("window", ["59", "86401", "1h", "-1", ""])
def test_traffic_metrics_refuse_an_invalid_window(app_fixture: AppFixture, window: str) -> None:
    answer = app_fixture.client.get("/services/web/figures", params={"window": window})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "window")


def test_traffic_metrics_of_an_unknown_service_answer_404(app_fixture: AppFixture) -> None:
    answer = app_fixture.client.get("/services/missing/figures")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_service")


def test_prometheus_metrics_have_request_counters_and_a_histogram(app_fixture: AppFixture) -> None:
    app_fixture.sluice.traffic_sampler._router.news = NEWS
    take(app_fixture, app_fixture.sluice.traffic_sampler)
    lines = app_fixture.client.get("/metrics").text.splitlines()
    labels, duration = 'revision="1",service="web"', "sluice_gateway_request_duration_seconds"
    assert f'sluice_gateway_requests_total{{code="2xx",{labels}}} 90.0' in lines
    assert 'sluice_gateway_requests_total{code="5xx",revision="none",service="web"} 2.0' in lines
    assert f'{duration}_bucket{{le="0.006",{labels}}} 0.0' in lines
    assert f'{duration}_bucket{{le="0.009",{labels}}} 100.0' in lines
    assert f'{duration}_bucket{{le="+Inf",{labels}}} 100.0' in lines
    assert f"{duration}_count{{{labels}}} 100.0" in lines


def test_traffic_sample_that_the_store_refuses_is_written_with_the_next_one(
    app_fixture: AppFixture, monkeypatch: Any
) -> None:
    gateway = FakeGatewayRouter(app_fixture.sluice.clock)
    figures = TrafficSampler(app_fixture.sluice.store, TenSecondClock(app_fixture.sluice.clock), gateway)
    gateway.news = NEWS
    with monkeypatch.context() as broken:
        broken.setattr("services.traffic_metrics.sampler.write_samples", _full)
        take(app_fixture, figures)
    gateway.news = Counter({CountKey("web", 1, 2, None): 1})
    take(app_fixture, figures)
    assert app_fixture.client.get("/services/web/figures").json()["totals"]["requests"] == 103


def test_traffic_sampler_survives_a_gateway_that_does_not_answer(app_fixture: AppFixture, monkeypatch: Any) -> None:
    gateway = FakeGatewayRouter(app_fixture.sluice.clock)
    figures = TrafficSampler(app_fixture.sluice.store, TenSecondClock(app_fixture.sluice.clock), gateway)

    async def silent() -> None:
        raise RoutingError("The gateway does not answer")

    monkeypatch.setattr(gateway, "take_response_counts", silent)
    take(app_fixture, figures)
    assert figures.totals == {}


def _full(*_: object) -> None:
    raise OperationalError("INSERT", {}, Exception("database or disk is full"))
