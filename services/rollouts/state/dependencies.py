"""Groups of deployments that are applied together, and the dependencies between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from services.rollouts.state.status import TERMINAL, Kind, Status
from services.store.tables import Deployment


@dataclass(frozen=True)
class ApplyGroup:
    """The dependencies of a service in its last apply group.

    `depends_on` maps the services that it waited for, and `needed_by` the services that waited for it, to whether the
    dependency is required.
    """

    group: int
    depends_on: Mapping[str, bool]
    needed_by: Mapping[str, bool]


def next_group(session: Session) -> int:
    """Return the number for a new group."""
    return (session.exec(select(func.max(Deployment.group))).one() or 0) + 1


def group_of(session: Session, deployment: int) -> Sequence[Deployment]:
    """Return the deployments of the given deployment's group, itself included, in order of their ids.

    Dependencies have lower ids, so the deployments may begin in this order.
    """
    number = session.get_one(Deployment, deployment).group
    return session.exec(select(Deployment).where(Deployment.group == number).order_by(col(Deployment.id))).all()


def last_apply_group(session: Session, service: str) -> ApplyGroup | None:
    """Return the group in which the service was last applied with others, or None if it never was.

    The group of a service that is not deployed again does not change.
    """
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
    """Return whether a dependency has not ended yet and no required dependency has failed."""
    if not row.depends_on:
        return False
    return failed_dependency(session, row) is None and any(
        other.status not in TERMINAL for other, _ in _dependencies(session, row)
    )


def failed_dependency(session: Session, row: Deployment) -> Deployment | None:
    """Return the first required dependency that ended other than in a successful deployment, or None.

    A deployment that removed its service counts as failed.
    """
    for other, required in _dependencies(session, row):
        succeeded = other.status == Status.SUCCEEDED and other.kind != Kind.REMOVE
        if required and other.status in TERMINAL and not succeeded:
            return other
    return None


def _dependencies(session: Session, row: Deployment) -> Iterator[tuple[Deployment, bool]]:
    """Yield each dependency's deployment as it is now, and whether it is required.

    A superseded deployment is replaced by the deployment that superseded it.
    """
    for dependency in row.depends_on:
        other = session.get_one(Deployment, dependency["deployment"])
        while other.superseded_by is not None:
            other = session.get_one(Deployment, other.superseded_by)
        yield other, dependency["required"]
