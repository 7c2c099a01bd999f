"""The metrics of one Sluice, and their text for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    Info,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlmodel import Session

from services.control_metrics.deployments import DeploymentCounter, deployment_families
from services.control_metrics.deprecated import deprecated_families
from services.control_metrics.services import read_services, service_families
from services.routing.traffic_counts import CountKey
from services.traffic_metrics.prometheus import traffic_families

disable_created_metrics()  # type: ignore[no-untyped-call]
PARTS = ("engine", "gateway", "store")
API_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600)


@dataclass(frozen=True)
class Readings:
    """Values that are in memory only, taken for one scrape.

    `in_flight` maps services to requests. `crash_looping` has the services with that warning. `traffic` is `totals` of
    the traffic sampler.
    """

    in_flight: Mapping[str, int]
    crash_looping: frozenset[str]
    not_ready: Mapping[str, str]
    reconciles: int
    run: int
    traffic: Mapping[tuple[str, int], Counter[CountKey]]


class Metrics:
    """The metrics of one Sluice.

    Counters of this process begin at 0 with each start. Families about services and deployments are read from the store,
    so a restart does not change them.
    """

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self.api_requests = CounterMetric(
            "sluice_api_requests",
            "Requests to the API of Sluice, by route.",
            ("method", "route", "code"),
            registry=self.registry,
        )
        self.api_durations = Histogram(
            "sluice_api_request_duration_seconds",
            "Seconds until the response header of the API, by route.",
            ("route",),
            buckets=API_BUCKETS,
            registry=self.registry,
        )
        self.streams = Gauge("sluice_open_streams", "Open event and log streams.", registry=self.registry)
        Info("sluice_build", "Version of Sluice; the value is always 1.", registry=self.registry).info({"version": version})
        ProcessCollector(registry=self.registry)
        self._deployments = DeploymentCounter()

    def render(self, session: Session, readings: Readings) -> bytes:
        """Return the current text of /metrics."""
        services, deployments = read_services(session, readings.crash_looping), self._deployments.count(session)
        names = {service.name for service in services}
        families = [
            *self.registry.collect(),
            *_runtime_families(readings),
            *service_families(services, readings.in_flight),
            *deployment_families(deployments, names),
            *traffic_families({key: counts for key, counts in readings.traffic.items() if key[0] in names}),
        ]
        return generate_latest(_Scrape([*families, *deprecated_families(families, deployments)]))


class _Scrape(Collector):
    """The families of one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _runtime_families(readings: Readings) -> Iterator[Metric]:
    """Yield the families about this process and the parts that it needs."""
    yield CounterMetricFamily("sluice_reconciles", "Reconciles since the start.", value=readings.reconciles)
    ready = GaugeMetricFamily("sluice_part_ready", "Whether a component answers (1) or not (0).", labels=["part"])
    for part in PARTS:
        ready.add_metric([part], part not in readings.not_ready)
    yield ready
    yield GaugeMetricFamily("sluice_run", "Number of this run of Sluice.", value=readings.run)
