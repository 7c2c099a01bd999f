"""Deployments that are made together, and that wait for one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlmodel import Session, col, func, select

from services.rollouts.phases import TERMINAL, Kind, Status
from services.store.tables import Deployment


def next_group(session: Session) -> int:
    return (session.exec(select(func.max(Deployment.group))).one() or 0) + 1


def group_of(session: Session, deployment: int) -> Sequence[Deployment]:
    """All that were made together with it, itself included, as they may begin."""
    number = session.get_one(Deployment, deployment).group
    return session.exec(select(Deployment).where(Deployment.group == number).order_by(col(Deployment.id))).all()


def waits(session: Session, row: Deployment) -> bool:
    """Something that it depends on has not ended, and nothing has failed that would end it."""
    if not row.depends_on:
        return False
    return failed_dependency(session, row) is None and any(
        other.status not in TERMINAL for other, _ in _dependencies(session, row)
    )


def failed_dependency(session: Session, row: Deployment) -> Deployment | None:
    """The first of those that it requires which has ended in another way than it should."""
    for other, required in _dependencies(session, row):
        succeeded = other.status == Status.SUCCEEDED and other.kind != Kind.REMOVE
        if required and other.status in TERMINAL and not succeeded:
            return other
    return None


def _dependencies(session: Session, row: Deployment) -> Iterator[tuple[Deployment, bool]]:
    """Each as it stands, and whether it is required; one that was superseded is whatever took over from it."""
    for dependency in row.depends_on:
        other = session.get_one(Deployment, dependency["deployment"])
        while other.superseded_by is not None:
            other = session.get_one(Deployment, other.superseded_by)
        yield other, dependency["required"]
