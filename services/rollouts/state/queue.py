"""The pending deployments of a service, and which of them is next."""

from __future__ import annotations

from sqlmodel import Session, col, select

from services.rollouts.state.service_snapshot import ACTIVE
from services.rollouts.state.status import Kind
from services.store.tables import Deployment


def next_pending(session: Session, service: str) -> Deployment | None:
    """Return the pending deployment that begins next, or None.

    It is the newest deployment that supersedes others, or else the oldest one if no deployment is in progress.
    """
    waiting = session.exec(
        select(Deployment).where(Deployment.service == service, Deployment.status == "pending").order_by(col(Deployment.id))
    ).all()
    if not waiting:
        return None
    taking_over = [row for row in waiting if supersedes(row)]
    if taking_over:
        return taking_over[-1]
    running = session.exec(
        select(Deployment.id).where(Deployment.service == service, col(Deployment.status).in_(ACTIVE))
    ).first()
    return waiting[0] if running is None else None


def supersedes(row: Deployment) -> bool:
    """Return whether the deployment supersedes the others of its service."""
    return row.on_conflict == "supersede" or row.kind == Kind.REMOVE
