"""The routers' view of services and instances, derived from their rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, func, select, tuple_, union
from sqlmodel.sql.expression import Select

from services.rollouts.planner.classify import matches
from services.rollouts.planner.observed import ObservedInstance
from services.rollouts.state.planner_inputs import desired_state
from services.rollouts.state.revision_spec import revision_healthcheck, revision_spec
from services.rollouts.state.service_snapshot import ACTIVE, ServiceSnapshot
from services.routing.port import Endpoint, RoutedService
from services.store.tables import Deployment, Instance, Revision, Service


def routed_service(service: Service, revision: Revision, linked: bool) -> RoutedService | None:
    """Return the settings of a service for the routers, or None for a worker, to which nothing is routed."""
    if revision.port is None:
        return None
    spec = revision_spec(revision)
    return RoutedService(
        name=service.name,
        port=revision.port,
        internal_port=service.internal_port,
        routes=tuple(spec.routes),
        linked=linked,
        request_timeout=spec.request_timeout,
        tunnel_timeout=spec.tunnel_timeout,
        queue_timeout=spec.queue_timeout,
        upstream_keepalive=spec.upstream_keepalive,
        retry_with_idempotency_key=spec.retry_with_idempotency_key,
        advertise=spec.advertise,
        consumer_cache=spec.consumer_cache,
        eureka=spec.eureka,
        healthcheck=revision_healthcheck(revision),
    )


def endpoint_for(row: Instance, revision: Revision, start_id: str) -> Endpoint:
    """Return the endpoint of an instance. `start_id`: the start that was proved ready.

    Raises ValueError if the instance has no port.
    """
    if row.port is None:
        raise ValueError(f"{row.id} has no port: it gets no requests")
    return Endpoint(row.id, row.service, row.address, row.port, start_id, revision_healthcheck(revision))


def active_revision(snapshot: ServiceSnapshot, observed: Sequence[ObservedInstance]) -> Revision | None:
    """Return the revision whose routes and timeouts are in force now.

    During a deployment it is the desired revision as soon as the first instance of that revision is ready, or if the
    deployment's size is 0.
    """
    deployment, present = snapshot.deployment, snapshot.current_revision
    wanted = snapshot.desired_revision
    if deployment is None or present is None or wanted is None or wanted.number == present.number:
        return wanted
    target = desired_state(snapshot)
    arrived = any(matches(target, instance) and (instance.ready_at is not None or instance.serves) for instance in observed)
    return wanted if arrived or not deployment.replicas else present


def is_published(wanted: RoutedService | None, published: RoutedService | None) -> bool:
    """Return whether the routers know the service as its own revision requires.

    Links from other services do not count: a link that cannot be served fails the deployment that asks for the link.
    """
    if wanted is None or published is None:
        return wanted is published
    return replace(wanted, linked=published.linked) == published


def linked_services(session: Session) -> set[str]:
    """Return the services that another service names in the `links` of an active or coming revision."""
    return {name for _, links in active_spec_values(session, "links") for name in links}


def services_linking_to(session: Session, service: str) -> list[str]:
    """Return the other services whose current or coming revision names this service in `links` by itself.

    The links of a Compose file's services do not count: each of them gets a link to every service on its networks, workers
    included. Deployments from a Compose file have a group.
    """
    linking = [name for name, links in active_spec_values(session, "links") if name != service and service in links]
    if not linking:
        return []
    grouped = (
        select(Revision.service)
        .join(Deployment, col(Deployment.id) == Revision.deployment)
        .where(col(Revision.service).in_(linking), _is_active_revision(), col(Deployment.group).is_not(None))
    )
    from_files = session.exec(grouped).all()
    return sorted(set(linking) - set(from_files))


def active_spec_values(session: Session, field: str) -> list[tuple[str, list[Any]]]:
    """Return (service, value of the list field) for each current or coming revision with a value.

    Revisions in which the list is empty are left out. A coming revision is that of a deployment in progress.

    The values come from the effective spec. One query covers all services, because it runs at the start and end of every
    deployment.
    """
    return list(session.exec(_active_values(field)))


@cache
def _active_values(field: str) -> Select[str, Any]:
    """Build the query once for each field: building it takes half as long as running it."""
    effective = col(Revision.effective)
    return (
        select(Revision.service, effective[field])
        .where(_is_active_revision())
        .where(func.json_array_length(effective, f"$.{field}") > 0)
    )


def _is_active_revision() -> ColumnElement[bool]:
    """Return the condition that a revision is current, or that of a deployment in progress."""
    present = select(Service.name, Service.revision)
    coming = select(Deployment.service, Deployment.revision).where(col(Deployment.status).in_(ACTIVE))
    return tuple_(Revision.service, Revision.number).in_(union(present, coming))


def traffic_split(
    rows: Iterable[Instance], observed: Sequence[ObservedInstance], present: Revision | None
) -> list[dict[str, int]]:
    """Return the percentage of new requests that each revision gets, newest revision first.

    Instances get equal shares, so a revision's share is its share of the admitted instances.
    """
    revisions = {row.id: displayed_revision(row, present) for row in rows}
    counts: dict[int, int] = {}
    for instance in observed:
        if instance.serves and instance.routed:
            counts[revisions[instance.id]] = counts.get(revisions[instance.id], 0) + 1
    total = sum(counts.values())
    shares = [
        {"revision": number, "percent": count * 100 // total} for number, count in sorted(counts.items(), reverse=True)
    ]
    if shares:
        shares[0]["percent"] += 100 - sum(share["percent"] for share in shares)
    return shares


def displayed_revision(row: Instance, present: Revision | None) -> int:
    """Return the current revision if the instance has its hash, else the instance's first revision."""
    return present.number if present is not None and present.hash == row.hash else row.revision
