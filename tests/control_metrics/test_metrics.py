"""Metrics read from the store: services, instances, restarts and deployments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from services.control_metrics.metrics import Metrics, Readings
from services.rollouts.state.operational_state import OperationalState
from services.routing.traffic_counts import CountKey
from services.store.tables import Deployment, Instance, Service
from tests.support.dashboard_fixture import DashboardFixture
from tests.support.prometheus_text import Samples


@pytest.fixture
def dashboard_fixture(tmp_path: Path) -> Iterator[DashboardFixture]:
    made = DashboardFixture(tmp_path)
    yield made
    made.close()


def text(dashboard_fixture: DashboardFixture, metrics: Metrics | None = None, **readings: Any) -> str:
    taken = Readings(
        **{
            "in_flight": {},
            "crash_looping": frozenset(),
            "not_ready": {},
            "reconciles": 7,
            "run": 1,
            "traffic": {},
            **readings,
        }
    )
    with dashboard_fixture.sluice.store.read_session() as session:
        return (metrics or dashboard_fixture.sluice.metrics).render(session, taken).decode()


def scrape(dashboard_fixture: DashboardFixture, metrics: Metrics | None = None, **readings: Any) -> Samples:
    return Samples(text(dashboard_fixture, metrics, **readings))


def ended(dashboard_fixture: DashboardFixture, status: str, seconds: float, **fields: Any) -> int:
    """Add a deployment of `web` that took `seconds`."""
    return dashboard_fixture.write(lambda session: _ended(session, status, seconds, fields))


def _ended(session: Any, status: str, seconds: float, fields: dict[str, Any]) -> int:
    row = Deployment(
        **{"service": "web", "kind": "deploy", "status": status, "created_at": 50.0, "started_at": 100.0, **fields}
    )
    row.finished_at = 100.0 + seconds
    session.add(row)
    session.flush()
    return row.id or 0


def test_replicas_and_instances_are_counted_by_service(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    dashboard_fixture.service("api", 1)
    dashboard_fixture.change(Instance, "web-r1-2", leaving_at=1.0)
    dashboard_fixture.change(Instance, "web-r1-3", status="unhealthy")
    samples = scrape(dashboard_fixture, in_flight={"web": 5})
    assert samples.value("sluice_services") == 2
    assert samples.value("sluice_service_replicas_desired", service="web") == 3
    assert samples.value("sluice_service_replicas_serving", service="web") == 1
    assert samples.value("sluice_service_replicas_serving", service="api") == 1
    assert samples.value("sluice_instances", service="web", status="serving") == 2
    assert samples.value("sluice_instances", service="web", status="unhealthy") == 1
    assert samples.value("sluice_instances", service="api", status="draining") == 0
    assert samples.value("sluice_requests_in_flight", service="web") == 5
    assert samples.value("sluice_requests_in_flight", service="api") == 0


def test_service_without_a_revision_desires_no_replicas(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    dashboard_fixture.change(Service, "web", revision=None)
    assert scrape(dashboard_fixture).value("sluice_service_replicas_desired", service="web") == 0


def test_a_service_has_a_sample_of_each_state_and_one_of_them_is_1(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    dashboard_fixture.service("api", 1)
    dashboard_fixture.change(Instance, "web-r1-3", status="unhealthy")

    def states(service: str, **readings: Any) -> dict[str, float | None]:
        samples = scrape(dashboard_fixture, **readings)
        return {
            str(state): samples.value("sluice_service_state", service=service, state=state) for state in OperationalState
        }

    none: dict[str, float | None] = dict.fromkeys(map(str, OperationalState), 0.0)
    assert states("web") == {**none, "unhealthy": 1}
    assert states("api") == {**none, "serving": 1}
    assert states("api", crash_looping=frozenset({"api"})) == {**none, "crash_looping": 1}


def test_restarts_include_those_of_instances_that_exist_no_longer(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    assert scrape(dashboard_fixture).value("sluice_instance_restarts_total", service="web") == 0
    dashboard_fixture.change(Instance, "web-r1-1", restarts=2)
    dashboard_fixture.change(Instance, "web-r1-2", restarts=1, status="failed", stopped_at=1.0)
    assert scrape(dashboard_fixture).value("sluice_instance_restarts_total", service="web") == 3


def test_removed_service_has_no_series(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    dashboard_fixture.service("api", 1)
    dashboard_fixture.change(Instance, "web-r1-1", restarts=2)
    ended(dashboard_fixture, "succeeded", 3)
    traffic = {("web", 1): Counter({CountKey("web", 1, 2, None): 4, CountKey("web", 1, None, 3): 4})}
    assert len(scrape(dashboard_fixture, traffic=traffic).names_with(service="web")) > 8
    dashboard_fixture.change(Service, "web", removed=True)
    samples = scrape(dashboard_fixture, traffic=traffic, in_flight={"web": 1})
    assert samples.names_with(service="web") == set()
    assert samples.value("sluice_deployment_duration_seconds_count", status="succeeded") == 1


def test_deployments_are_counted_by_status_with_their_durations(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    ended(dashboard_fixture, "succeeded", 3)
    ended(dashboard_fixture, "succeeded", 5)
    ended(dashboard_fixture, "rolled_back", 700)
    ended(dashboard_fixture, "aborted", 9, started_at=None)
    dashboard_fixture.deployment("web", status="paused")
    samples = scrape(dashboard_fixture)
    assert samples.value("sluice_deployments_total", service="web", status="succeeded") == 2
    assert samples.value("sluice_deployments_total", service="web", status="failed") == 0
    assert samples.value("sluice_deployments_total", service="web", status="aborted") == 1
    assert samples.value("sluice_deployments_active", service="web", status="paused") == 1
    assert samples.value("sluice_deployments_active", service="web", status="progressing") == 0
    assert samples.value("sluice_deployments_total", service="web", status="paused") is None
    duration = "sluice_deployment_duration_seconds"
    assert samples.value(f"{duration}_bucket", status="succeeded", le="2.0") == 0
    assert samples.value(f"{duration}_bucket", status="succeeded", le="5.0") == 2
    assert samples.value(f"{duration}_sum", status="succeeded") == 8
    assert samples.value(f"{duration}_bucket", status="rolled_back", le="600.0") == 0
    assert samples.value(f"{duration}_count", status="rolled_back") == 1
    assert samples.value(f"{duration}_count", status="aborted") == 0


def test_deployment_is_counted_once_when_it_ends_after_later_ones(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    dashboard_fixture.service("api", 3)
    first = dashboard_fixture.deployment("api")
    ended(dashboard_fixture, "succeeded", 3)
    for _ in range(2):
        samples = scrape(dashboard_fixture)
        assert samples.value("sluice_deployments_total", service="web", status="succeeded") == 1
        assert samples.value("sluice_deployments_active", service="api", status="progressing") == 1
    dashboard_fixture.change(Deployment, first, status="failed", finished_at=dashboard_fixture.sluice.clock.now())
    ended(dashboard_fixture, "succeeded", 3)
    for _ in range(2):
        samples = scrape(dashboard_fixture)
        assert samples.value("sluice_deployments_total", service="web", status="succeeded") == 2
        assert samples.value("sluice_deployments_total", service="api", status="failed") == 1
        assert samples.value("sluice_deployments_active", service="api", status="progressing") == 0


def statements(dashboard_fixture: DashboardFixture) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the statements of a scrape with their parameters."""
    executed: list[tuple[str, tuple[Any, ...]]] = []
    engine = dashboard_fixture.sluice.store._reader

    def record(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        executed.append((statement, tuple(parameters)))

    event.listen(engine, "before_cursor_execute", record)
    scrape(dashboard_fixture)
    event.remove(engine, "before_cursor_execute", record)
    return executed


def test_ended_deployment_is_read_from_the_store_once(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    last = ended(dashboard_fixture, "succeeded", 3)
    scrape(dashboard_fixture)
    assert [parameters for statement, parameters in statements(dashboard_fixture) if "finished_at" in statement] == [(last,)]


def test_a_scrape_reads_instances_through_indices_and_not_the_whole_history(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    queries = [each for each in statements(dashboard_fixture) if "FROM instance" in each[0]]
    assert len(queries) == 3
    with dashboard_fixture.sluice.store.read_session() as session:
        connection = session.connection()
        for statement, parameters in queries:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            (step,) = [row[3] for row in plan if " instance " in row[3]]
            assert step.startswith("SEARCH instance USING"), statement
            assert ("ix_instance_restarts" in step) == ("sum" in statement), step


def test_counters_from_the_store_survive_a_restart_of_sluice(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    dashboard_fixture.change(Instance, "web-r1-1", restarts=2)
    ended(dashboard_fixture, "succeeded", 3)
    before, after = scrape(dashboard_fixture), scrape(dashboard_fixture, Metrics("1.1"))
    for name, labels in (
        ("sluice_deployments_total", {"service": "web", "status": "succeeded"}),
        ("sluice_instance_restarts_total", {"service": "web"}),
        ("sluice_deployment_duration_seconds_sum", {"status": "succeeded"}),
    ):
        assert before.value(name, **labels) == after.value(name, **labels) != 0
    assert after.value("sluice_build_info", version="1.1") == 1


def test_old_names_have_the_values_of_the_new_ones_and_are_marked_deprecated(dashboard_fixture: DashboardFixture) -> None:
    dashboard_fixture.service("web", 3)
    ended(dashboard_fixture, "succeeded", 3, kind="scale")
    metrics = Metrics("1.0")
    metrics.api_requests.labels("GET", "/metrics", "200").inc()
    metrics.api_durations.labels("/metrics").observe(0.01)
    traffic = {("web", 1): Counter({CountKey("web", 1, 2, None): 4, CountKey("web", 1, None, 3): 4})}
    samples = scrape(dashboard_fixture, metrics, traffic=traffic)
    assert samples.value("sluice_http_requests_total", method="GET", route="/metrics", status="200") == 1
    assert samples.value("sluice_http_request_seconds_bucket", route="/metrics", le="0.02") == 1
    assert samples.value("sluice_requests_total", service="web", revision="1", code="2xx") == 4
    assert samples.value("sluice_request_seconds_bucket", service="web", revision="1", le="0.006") == 4
    assert samples.value("sluice_loop_turns") == samples.value("sluice_reconciles_total") == 7
    assert samples.value("sluice_deployments", kind="scale", status="succeeded") == 1
    lines = text(dashboard_fixture, metrics, traffic=traffic).splitlines()
    for old, new in (
        ("sluice_http_requests_total", "sluice_api_requests_total"),
        ("sluice_http_request_seconds", "sluice_api_request_duration_seconds"),
        ("sluice_requests_total", "sluice_gateway_requests_total"),
        ("sluice_request_seconds", "sluice_gateway_request_duration_seconds"),
        ("sluice_loop_turns", "sluice_reconciles_total"),
        ("sluice_deployments", "sluice_deployments_total and sluice_deployments_active"),
    ):
        assert f"# HELP {old} Deprecated, removed in the next version: use {new}." in lines
    assert sum("Deprecated" in line for line in lines) == 6


def test_service_with_traffic_has_a_sample_of_each_code_before_the_first_error(
    dashboard_fixture: DashboardFixture,
) -> None:
    dashboard_fixture.service("web", 1)
    traffic = {("web", 1): Counter({CountKey("web", 1, 2, None): 4})}
    samples = scrape(dashboard_fixture, traffic=traffic)
    assert samples.value("sluice_gateway_requests_total", service="web", revision="1", code="5xx") == 0
