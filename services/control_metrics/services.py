"""Families with one sample or more for each service that is not removed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from sqlmodel import Session, col, func, select

from services.store.tables import Instance, Service

EXISTING_STATUSES = ("creating", "starting", "ready", "serving", "unhealthy", "draining", "stopping")
"""Statuses of instances that exist; stopped and failed ones are history. `sluice_instances` has a sample for each."""
_IS_OF_SERVICE = col(Instance.service).in_(select(Service.name).where(col(Service.removed).is_(False)))
_SERVICES = select(Service.name, Service.replicas, Service.revision).where(col(Service.removed).is_(False))
_INSTANCES = (
    select(Instance.service, Instance.status, func.count(), func.count(col(Instance.leaving_at)))
    .where(_IS_OF_SERVICE, col(Instance.status).in_(EXISTING_STATUSES))
    .group_by(col(Instance.service), col(Instance.status))
)
_RESTARTS = (
    select(Instance.service, func.sum(Instance.restarts))
    .where(_IS_OF_SERVICE, Instance.restarts > 0)
    .group_by(col(Instance.service))
)


@dataclass(frozen=True)
class ServiceReading:
    """Values of one service at one scrape.

    `restarts` includes those of instances that exist no longer, so that the counter never decreases.
    """

    name: str
    desired: int
    serving: int
    instances: Mapping[str, int]
    restarts: int


def read_services(session: Session) -> list[ServiceReading]:
    """Read every service that is not removed, by name."""
    instances: defaultdict[str, Counter[str]] = defaultdict(Counter)
    serving: Counter[str] = Counter()
    for service, status, number, leaving in session.exec(_INSTANCES):
        instances[service][status] = number
        if status == "serving":
            serving[service] = number - leaving
    restarts = dict(session.exec(_RESTARTS).all())
    return [
        ServiceReading(
            name, replicas if revision is not None else 0, serving[name], instances[name], int(restarts.get(name, 0))
        )
        for name, replicas, revision in sorted(session.exec(_SERVICES))
    ]


def service_families(services: Sequence[ServiceReading], in_flight: Mapping[str, int]) -> Iterator[Metric]:
    """Yield a gauge or counter for each value of the services."""
    yield GaugeMetricFamily("sluice_services", "Services, without removed ones.", value=len(services))
    yield _gauge(
        "sluice_service_replicas_desired",
        "Instances that the current revision should have; 0 before the first revision.",
        ((service.name, service.desired) for service in services),
    )
    yield _gauge(
        "sluice_service_replicas_serving",
        "Instances that serve and do not drain.",
        ((service.name, service.serving) for service in services),
    )
    yield _gauge(
        "sluice_requests_in_flight",
        "Requests in flight at the instances of a service.",
        ((service.name, in_flight.get(service.name, 0)) for service in services),
    )
    instances = GaugeMetricFamily(
        "sluice_instances", "Existing instances, by service and status.", labels=["service", "status"]
    )
    restarts = CounterMetricFamily(
        "sluice_instance_restarts", "Restarts of instances by the engine, after their process exited.", labels=["service"]
    )
    for service in services:
        for status in EXISTING_STATUSES:
            instances.add_metric([service.name, status], service.instances.get(status, 0))
        restarts.add_metric([service.name], service.restarts)
    yield instances
    yield restarts


def _gauge(name: str, text: str, values: Iterable[tuple[str, int]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["service"])
    for service, value in values:
        family.add_metric([service], value)
    return family
