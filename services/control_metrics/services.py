"""Families with one sample or more for each service that is not removed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from sqlmodel import Session, col, func, select

from services.rollouts.state.operational_state import OperationalState, ServiceFacts, service_state
from services.rollouts.state.service_facts import read_facts
from services.store.tables import Instance, Service

EXISTING_STATUSES = ("creating", "starting", "ready", "serving", "unhealthy", "draining", "stopping")
"""Statuses of instances that exist; stopped and failed ones are history. `sluice_instances` has a sample for each."""
_IS_OF_SERVICE = col(Instance.service).in_(select(Service.name).where(col(Service.removed).is_(False)))
_SERVICES = select(Service.name).where(col(Service.removed).is_(False))
_INSTANCES = (
    select(Instance.service, Instance.status, func.count())
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
    facts: ServiceFacts
    instances: Mapping[str, int]
    restarts: int


def read_services(session: Session, crash_looping: Container[str]) -> list[ServiceReading]:
    """Read every service that is not removed, by name; `crash_looping` has services with that warning."""
    instances: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for service, status, number in session.exec(_INSTANCES):
        instances[service][status] = number
    restarts = dict(session.exec(_RESTARTS).all())
    facts = read_facts(session, session.exec(_SERVICES).all(), crash_looping)
    return [ServiceReading(name, facts[name], instances[name], int(restarts.get(name, 0))) for name in sorted(facts)]


def service_families(services: Sequence[ServiceReading], in_flight: Mapping[str, int]) -> Iterator[Metric]:
    """Yield a gauge or counter for each value of the services."""
    yield GaugeMetricFamily("sluice_services", "Services, without removed ones.", value=len(services))
    yield _gauge(
        "sluice_service_replicas_desired",
        "Instances that the current revision should have; 0 before the first revision.",
        ((service.name, service.facts.desired) for service in services),
    )
    yield _gauge(
        "sluice_service_replicas_serving",
        "Instances that serve and do not drain.",
        ((service.name, service.facts.serving) for service in services),
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
    yield _states(services)


def _states(services: Sequence[ServiceReading]) -> Metric:
    family = GaugeMetricFamily(
        "sluice_service_state", "Whether a service is in a state (1) or not (0).", labels=["service", "state"]
    )
    for service in services:
        present = service_state(service.facts)
        for state in OperationalState:
            family.add_metric([service.name, state], state == present)
    return family


def _gauge(name: str, text: str, values: Iterable[tuple[str, int]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["service"])
    for service, value in values:
        family.add_metric([service], value)
    return family
