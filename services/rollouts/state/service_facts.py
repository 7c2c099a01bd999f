"""Queries for the facts that determine the states of services."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from typing import Any

from sqlalchemy import BindParameter, String, bindparam, literal_column
from sqlmodel import Session, col, func, select

from services.rollouts.state.operational_state import RESULTS, UNFINISHED, OperationalState, ServiceFacts, service_state
from services.store.tables import Deployment, Instance, Service

_NAMES: BindParameter[Any] = bindparam("names", expanding=True)
_LAST_RESULT = (
    select(Deployment.status)
    # The sign excludes the index of statuses: the newest row is found at once by the index of services.
    .where(Deployment.service == Service.name, literal_column("+deployment.status", String).in_(sorted(RESULTS)))
    .order_by(col(Deployment.id).desc())
    .limit(1)
    .correlate(Service)
    .scalar_subquery()
)
_SERVICES = select(Service.name, Service.replicas, Service.revision, _LAST_RESULT).where(col(Service.name).in_(_NAMES))
_INSTANCES = (
    select(Instance.service, Instance.status, func.count())
    .where(
        col(Instance.service).in_(_NAMES),
        col(Instance.status).in_(("serving", "unhealthy")),
        col(Instance.leaving_at).is_(None),
    )
    .group_by(col(Instance.service), col(Instance.status))
)
# Not by name: SQLite would read all deployments of the services, instead of the few that have not ended.
_UNFINISHED = select(Deployment.service, Deployment.status).where(col(Deployment.status).in_(sorted(UNFINISHED)))
"""Queries, built once: building a query takes as long as executing it."""


def read_facts(session: Session, names: Sequence[str], crash_looping: Container[str]) -> dict[str, ServiceFacts]:
    """Return service → its facts, for those of `names` that exist.

    `crash_looping` has the services with that warning.
    """
    params = {"names": names}
    counts = {(service, status): number for service, status, number in session.exec(_INSTANCES, params=params)}
    unfinished: defaultdict[str, set[str]] = defaultdict(set)
    for service, status in session.exec(_UNFINISHED):
        unfinished[service].add(status)
    return {
        name: ServiceFacts(
            desired=replicas if revision is not None else 0,
            serving=counts.get((name, "serving"), 0),
            unhealthy=counts.get((name, "unhealthy"), 0),
            unfinished=frozenset(unfinished.get(name, ())),
            last_result=last_result,
            crash_looping=name in crash_looping,
        )
        for name, replicas, revision, last_result in session.exec(_SERVICES, params=params)
    }


def read_states(session: Session, names: Sequence[str], crash_looping: Container[str]) -> dict[str, OperationalState]:
    """Return service → its state, for those of `names` that exist."""
    return {name: service_state(facts) for name, facts in read_facts(session, names, crash_looping).items()}
