"""Deployments that are made together, and that wait for one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from services.rollouts.state.status import TERMINAL, Kind, Status
from services.store.tables import Deployment


@dataclass(frozen=True)
class ApplyGroup:
    """What a service waited for, and who waited for it, when it was last applied with others: service → is it required."""

    group: int
    depends_on: Mapping[str, bool]
    needed_by: Mapping[str, bool]


def next_group(session: Session) -> int:
    return (session.exec(select(func.max(Deployment.group))).one() or 0) + 1


def group_of(session: Session, deployment: int) -> Sequence[Deployment]:
    """All that were made together with it, itself included, as they may begin."""
    number = session.get_one(Deployment, deployment).group
    return session.exec(select(Deployment).where(Deployment.group == number).order_by(col(Deployment.id))).all()


def last_apply_group(session: Session, service: str) -> ApplyGroup | None:
    """None when it never was. Once told it stays so until there is another deployment."""
    mine = select(func.max(Deployment.id)).where(Deployment.service == service, col(Deployment.group).is_not(None))
    number = session.exec(mine).one()
    if number is None:
        return None
    group = group_of(session, number)
    called = {row.id: row.service for row in group}
    needs = {
        (row.service, called[other["deployment"]]): bool(other["required"]) for row in group for other in row.depends_on
    }
    return ApplyGroup(
        group[0].group or 0,
        {other: required for (one, other), required in needs.items() if one == service},
        {one: required for (one, other), required in needs.items() if other == service},
    )


def is_blocked(session: Session, row: Deployment) -> bool:
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
