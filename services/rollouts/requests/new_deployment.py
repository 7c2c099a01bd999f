"""Rows of new deployments and services, inserted in a command's transaction."""

from __future__ import annotations

from itertools import count

from sqlmodel import col, func, select

from services.errors import RequestError
from services.rollouts.requests.command import CommandTransaction, DeployRequest
from services.rollouts.requests.lookup import next_id
from services.rollouts.requests.validation import effective_replicas
from services.rollouts.state.id_floors import first_free_revision
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.status import TERMINAL, Kind, Status
from services.rollouts.state.transitions import StateWriter
from services.store.events import append_event
from services.store.tables import Deployment, Revision, Service

FIRST_INTERNAL_PORT = 20001


def deploy_row(deploy_request: DeployRequest, *, created_at: float) -> Deployment:
    """Return the row of a deploy request, not yet inserted."""
    return Deployment(
        service=deploy_request.service,
        kind=Kind.DEPLOY,
        body=deploy_request.fields,
        mode=deploy_request.mode,
        profile_named=deploy_request.profile_named,
        profile=deploy_request.profile,
        note=deploy_request.note,
        created_at=created_at,
    )


def revision_row(transaction: CommandTransaction, revision: Revision, kind: Kind) -> Deployment:
    """Return the row of a deployment of an unchanged revision at the service's size, not yet inserted."""
    spec = revision_spec(revision)
    return Deployment(
        service=revision.service,
        kind=kind,
        revision=revision.number,
        replicas=effective_replicas(transaction.session, revision.service),
        profile=revision.profile,
        on_conflict=spec.on_conflict,
        strategy=spec.effective_strategy,
        failure_action=spec.failure_action,
        image=revision.image,
        image_id=revision.image_id,
        created_at=transaction.clock.now(),
    )


def insert_deployment(transaction: CommandTransaction, row: Deployment) -> int:
    """Insert the deployment, apply `on_conflict` to the service's other deployments, and return the id.

    Pending deployments are superseded, or the new deployment waits, or RequestError 409 `deployment_in_progress` is raised.
    """
    session, by = transaction.session, transaction.by
    others = session.exec(
        select(Deployment).where(
            Deployment.service == row.service, col(Deployment.status).not_in([str(status) for status in TERMINAL])
        )
    ).all()
    if others and row.on_conflict == "reject" and row.kind != Kind.REMOVE:
        detail = f"deployment {others[0].id} of {row.service} is {others[0].status}, and on_conflict is reject"
        raise RequestError(409, "deployment_in_progress", detail)
    row.id = next_id(session)
    row.created_by_kind, row.created_by_name, row.bound_to = by.kind, by.name, transaction.bound_to
    row.message = "queued" if others else "accepted"
    session.add(row)
    session.flush()
    writer = StateWriter(transaction.clock, 0)
    writer.record_event(
        session, "created", f"{row.kind} requested by {by.name}", deployment=row, data={"kind": row.kind}, actor=by
    )
    if row.on_conflict == "supersede" or row.kind == Kind.REMOVE:
        for other in others:
            if other.status == Status.PENDING:
                writer.supersede(session, other, row.id)
    return row.id


def insert_service(transaction: CommandTransaction, name: str) -> None:
    """Insert a service with an internal port that no service has and no revision listens on."""
    session, now = transaction.session, transaction.clock.now()
    highest = session.exec(select(func.max(Service.internal_port))).one()
    taken = set(session.exec(select(Revision.port).where(col(Revision.port) > (highest or FIRST_INTERNAL_PORT - 1))))
    port = next(port for port in count(max(FIRST_INTERNAL_PORT, (highest or 0) + 1)) if port not in taken)
    append_event(session, now, "service_created", f"{name} created", service=name)
    session.add(Service(name=name, internal_port=port, created_at=now, next_revision=first_free_revision(session, name)))
    session.flush()
