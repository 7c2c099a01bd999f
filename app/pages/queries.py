"""All queries of the pages: rows, and for lists the documents of rows that the fragments show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy.orm import defer
from sqlmodel import Session, col, func, or_, select

from app.presenters.builds import BUILDS, present_build
from app.presenters.rollouts import INSTANCES
from services.builds.manager import UNFINISHED
from services.clock import rfc3339
from services.rollouts.state.operational_state import OperationalState
from services.rollouts.state.status import TERMINAL, Status
from services.store.readonly import select_readonly
from services.store.tables import Build, Deployment, Event, Instance, Revision, Service, Token, TrafficSample

MAX_ROWS, MAX_BUILDS = 15, 5
"""Number of deployments and revisions, and of builds, on a page."""
_LARGEST_ID = 2**63 - 1
_DEPLOYMENTS = select_readonly(
    Deployment, "id", "service", "kind", "status", "message", "note", "created_by_name", "created_at", "finished_at"
)
"""Only the columns that lists of deployments show."""
_DEPLOYMENT_FILTERS: dict[str, Any] = {
    "service": col(Deployment.service),
    "kind": col(Deployment.kind),
    "status": col(Deployment.status),
    "by": col(Deployment.created_by_name),
    "group": col(Deployment.group),
}
_AUDIT_FILTERS: dict[str, Any] = {
    "actor": col(Event.actor_name),
    "service": col(Event.service),
    "type": col(Event.type),
    "token": col(Event.actor_token),
}


NEVER_DEPLOYED = "never deployed"
"""Word on pages for a service that is `stopped` because no deployment of it has succeeded."""


class ServiceRow(NamedTuple):
    """The columns of a service that the overview shows."""

    name: str
    replicas: int
    revision: int | None
    profile: str | None


def number_of(id: str) -> int | None:
    """Return the number of a deployment or build in an address; None if the text is no valid number."""
    return int(id) if id.isascii() and id.isdecimal() and len(id) < 20 and int(id) <= _LARGEST_ID else None


def filtered_deployments(filters: Mapping[str, str]) -> Any:
    """Return the query of the deployments that match the filters; an empty filter matches all."""
    return _filtered(_DEPLOYMENTS, _DEPLOYMENT_FILTERS, filters)


def filtered_audit(filters: Mapping[str, str]) -> Any:
    """Return the query of the audit events that match the filters; an empty filter matches all."""
    return _filtered(select(Event).where(col(Event.actor_kind).is_not(None)), _AUDIT_FILTERS, filters)


def _filtered(query: Any, columns: Mapping[str, Any], filters: Mapping[str, str]) -> Any:
    for name, column in columns.items():
        if filters[name]:
            query = query.where(column == filters[name])
    return query


def with_running(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return a service's document for pages.

    It has also `shown_state`, and `running`: its last deployment if that has not ended.
    """
    last, state = service["deployment"], service["state"]
    never = service["revision"] is None and state == OperationalState.STOPPED
    return {
        **service,
        "shown_state": "removed" if service.get("status") == "removed" else NEVER_DEPLOYED if never else state,
        "running": last if last is not None and last["status"] not in TERMINAL else None,
    }


def deployment_items(rows: Iterable[Deployment]) -> list[dict[str, Any]]:
    """Return deployments as documents for fragments/deployments.html."""
    return [
        {
            "id": row.id,
            "service": row.service,
            "kind": row.kind,
            "status": row.status,
            "message": row.message,
            "note": row.note,
            "by": row.created_by_name,
            "created_at": rfc3339(row.created_at),
            "finished": row.finished_at is not None,
        }
        for row in rows
    ]


def newest_deployments(session: Session, service: str | None = None) -> list[dict[str, Any]]:
    """Return the items of the newest deployments, of one service or of all."""
    query = _DEPLOYMENTS.order_by(col(Deployment.id).desc()).limit(MAX_ROWS)
    return deployment_items(session.exec(query if service is None else query.where(Deployment.service == service)))


def last_deployments(session: Session) -> dict[str, dict[str, Any]]:
    """Return service → the item of its newest deployment."""
    newest = select(func.max(Deployment.id)).group_by(Deployment.service)
    items = deployment_items(session.exec(_DEPLOYMENTS.where(col(Deployment.id).in_(newest))))
    return {item["service"]: item for item in items}


def newest_deployment_id(session: Session) -> int | None:
    return session.exec(select(func.max(Deployment.id))).one()


def progress_by_service(session: Session) -> dict[str, dict[str, Any]]:
    """Return service → the progress of its deployment in progress."""
    active = (Status.PROGRESSING, Status.PAUSED, Status.ROLLING_BACK)
    rows = session.exec(select(Deployment.service, Deployment.progress).where(col(Deployment.status).in_(active)))
    return {service: dict(progress) for service, progress in rows}


def service_rows(session: Session) -> list[ServiceRow]:
    """Return the services that are not removed, by name.

    Specs are left out: reading, parsing and redacting them is most of the cost of a whole document.
    """
    present = (col(Revision.service) == Service.name) & (col(Revision.number) == Service.revision)
    rows = session.exec(
        select(Service.name, Service.replicas, Service.revision, Revision.profile)
        .join(Revision, present, isouter=True)
        .where(~col(Service.removed))
        .order_by(Service.name)
    )
    return [ServiceRow(*row) for row in rows]


def service_names(session: Session) -> Sequence[str]:
    """Return the names of all services, with the removed ones."""
    return session.exec(select(Service.name).order_by(Service.name)).all()


def existing_services(session: Session, names: Iterable[str]) -> set[str]:
    """Return those of `names` that are services and not removed."""
    return set(session.exec(select(Service.name).where(col(Service.name).in_(names), ~col(Service.removed))))


def service_instances(session: Session, service: str) -> Sequence[Instance]:
    """Return the instances of a service that are not gone, oldest first."""
    running = (Instance.service == service, col(Instance.stopped_at).is_(None))
    return session.exec(select(Instance).where(*running).order_by(col(Instance.created_at), Instance.id)).all()


def instance_ids(session: Session, service: str) -> Sequence[str]:
    """Return the ids of the instances of a service that are not gone."""
    return session.exec(select(Instance.id).where(Instance.service == service, col(Instance.stopped_at).is_(None))).all()


def deployment_instances(session: Session, row: Deployment) -> list[Instance]:
    """Return the service's instances that existed at any time of the deployment."""
    began, ended = row.started_at or row.created_at, row.finished_at
    query = INSTANCES.where(
        Instance.service == row.service, or_(col(Instance.stopped_at).is_(None), col(Instance.stopped_at) >= began)
    )
    if ended is not None:
        query = query.where(Instance.created_at <= ended)
    return list(session.exec(query))


def failed_instances(session: Session, row: Deployment) -> list[Instance]:
    """Return the instances that failed in the deployment, in the order of their ends."""
    failed = select(Instance).where(Instance.failed_deployment == row.id)
    return list(session.exec(failed.order_by(col(Instance.stopped_at), Instance.id)))


def deployment_events(session: Session, deployment: int | None) -> Sequence[Event]:
    """Return the events of a deployment, oldest first."""
    return session.exec(select(Event).where(Event.deployment == deployment).order_by(col(Event.id))).all()


def revisions(session: Session, service: str, limit: int | None = None) -> Sequence[Revision]:
    """Return the revisions of a service, newest first."""
    query = select(Revision).where(Revision.service == service).order_by(col(Revision.number).desc())
    return session.exec(query.limit(limit)).all()


def newest_builds(session: Session, service: str) -> list[dict[str, Any]]:
    """Return the documents of a service's newest builds for fragments/builds.html."""
    query = BUILDS.where(Build.service == service).order_by(col(Build.id).desc()).limit(MAX_BUILDS)
    return [build_item(row) for row in session.exec(query)]


def build_item(row: Build) -> dict[str, Any]:
    """Return the build's document with `running`."""
    return {**present_build(row), "running": row.status in UNFINISHED}


def find_build(session: Session, id: int | None) -> Build | None:
    """Return a build; its log is read when it is used."""
    return session.exec(select(Build).options(defer(Build.log)).where(Build.id == id)).first()  # type: ignore[arg-type]


def newest_sample(session: Session, step: int) -> int | None:
    """Return the start of the newest traffic sample of `step`; None if there is none."""
    return session.exec(select(func.max(TrafficSample.at)).where(col(TrafficSample.step) == step)).one()


def valid_tokens(session: Session) -> Sequence[Token]:
    """Return the tokens that are not revoked, newest first."""
    return session.exec(select(Token).where(col(Token.revoked_at).is_(None)).order_by(col(Token.id).desc())).all()
