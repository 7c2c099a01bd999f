"""Prometheus metrics: requests by route, deployments, instances, requests in flight, reconciles."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from sqlmodel import Session, col, func, select

from services.readiness import Readiness
from services.rollouts.state.runtime_status import RuntimeStatus
from services.rollouts.state.status import Kind, Status
from services.store.tables import Deployment, Instance, Service

disable_created_metrics()  # type: ignore[no-untyped-call]
INSTANCE_STATES = ("creating", "starting", "ready", "serving", "draining", "stopping")
"""Statuses of instances that exist; stopped and failed ones are history."""


class Metrics:
    """The metrics of one Sluice.

    All label values known in advance are exported from the start, with value 0.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sluice_http_requests", "Requests to the API, by route.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "sluice_http_request_seconds",
            "Seconds until the API's response header.",
            ("route",),
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600),
            registry=self.registry,
        )
        self.streams = Gauge("sluice_open_streams", "Open event and log streams.", registry=self.registry)
        self._deployments = self._gauge("sluice_deployments", "Deployments, by kind and status.", "kind", "status")
        self._instances = self._gauge("sluice_instances", "Existing instances, by service and status.", "service", "status")
        self._in_flight = self._gauge("sluice_requests_in_flight", "Requests in flight, by instance.", "service")
        self._services = self._gauge("sluice_services", "Services, without removed ones.")
        self._reconciles = self._gauge("sluice_loop_turns", "Reconciles since the start.")
        self._ready = self._gauge("sluice_part_ready", "Whether a component answers (1) or not (0).", "part")
        self._run = self._gauge("sluice_run", "Number of this run of Sluice.")

    def render(
        self, session: Session, runtime_status: RuntimeStatus, readiness: Readiness, reconciles: int, run: int
    ) -> bytes:
        """Return the current text of /metrics."""
        self._count_deployments(session)
        services = self._count_instances(session)
        self._count_in_flight(session, runtime_status, services)
        self._services.set(len(services))
        self._reconciles.set(reconciles)
        self._run.set(run)
        not_ready = readiness.not_ready()
        for part in ("engine", "gateway", "store"):
            self._ready.labels(part).set(0 if part in not_ready else 1)
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _count_deployments(self, session: Session) -> None:
        counted = select(Deployment.kind, Deployment.status, func.count()).group_by(Deployment.kind, Deployment.status)
        counts = {(kind, status): number for kind, status, number in session.exec(counted)}
        for kind in Kind:
            for status in Status:
                self._deployments.labels(kind, status).set(counts.get((kind, status), 0))

    def _count_instances(self, session: Session) -> list[str]:
        services = list(session.exec(select(Service.name).where(col(Service.removed).is_(False))))
        counted = (
            select(Instance.service, Instance.status, func.count())
            .where(col(Instance.status).in_(INSTANCE_STATES))
            .group_by(Instance.service, Instance.status)
        )
        counts = {(service, status): number for service, status, number in session.exec(counted)}
        self._instances.clear()
        for service in services:
            for status in INSTANCE_STATES:
                self._instances.labels(service, status).set(counts.get((service, status), 0))
        return services

    def _count_in_flight(self, session: Session, runtime_status: RuntimeStatus, services: list[str]) -> None:
        counts = runtime_status.in_flight_counts()
        query = select(Instance.id, Instance.service).where(col(Instance.id).in_(list(counts)))
        service_of: Mapping[str, str] = dict(session.exec(query).all())
        totals = dict.fromkeys(services, 0)
        for instance, number in counts.items():
            service = service_of.get(instance)
            if service is not None:
                totals[service] = totals.get(service, 0) + number
        self._in_flight.clear()
        for service, number in totals.items():
            self._in_flight.labels(service).set(number)
