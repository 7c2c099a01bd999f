"""Rows that requests refer to, found in the caller's session.

RequestError if a row is missing or in another state.
"""

from __future__ import annotations

from sqlmodel import Session, col, func, select

from services.errors import FieldError, RequestError
from services.rollouts.requests.validation import current_revision
from services.rollouts.state.id_floors import HIGHEST_LABEL
from services.rollouts.state.revision_spec import revision_spec
from services.rollouts.state.status import InvalidTransition, check_action
from services.store.tables import Deployment, Meta, Revision, Service


def next_id(session: Session) -> int:
    """Return an id above the highest one in the store and in the labels of containers.

    A store that was restored from a backup must not use an id again.
    """
    floor = session.get(Meta, HIGHEST_LABEL)
    highest = session.exec(select(func.max(Deployment.id))).one()
    return max(int(floor.value) if floor else 0, highest or 0) + 1


def get_service(session: Session, name: str) -> Service:
    """Return the service. Raises RequestError 404 `unknown_service` if it does not exist or was removed."""
    service = session.get(Service, name)
    if service is None or service.removed:
        raise RequestError(404, "unknown_service", f'service "{name[:64]}" not found')
    return service


def get_current_revision(session: Session, name: str) -> Revision:
    """Return the service's current revision.

    Raises RequestError: 404 `unknown_service`, 409 `never_deployed`.
    """
    service = get_service(session, name)
    current = current_revision(session, service)
    if current is None:
        raise RequestError(409, "never_deployed", f'no deployment of "{name}" has succeeded yet; deploy it first')
    return current


def get_deployment(session: Session, id: int) -> Deployment:
    """Return the deployment. Raises RequestError 404 `unknown_deployment`."""
    row = session.get(Deployment, id)
    if row is None:
        raise RequestError(404, "unknown_deployment", f"deployment {id} not found")
    return row


def check_allowed(row: Deployment, action: str) -> None:
    """Raise RequestError 409 `not_in_that_state` unless the deployment's status allows the action."""
    try:
        check_action(row.status, action)
    except InvalidTransition as error:
        raise RequestError(409, "not_in_that_state", str(error)) from error


def rollback_target(session: Session, current: Revision, number: int | None) -> Revision:
    """Return the revision asked for, or the newest earlier one that served and differs.

    Only revisions within the history limit are kept.
    """
    limit = revision_spec(current).revision_history_limit
    served = session.exec(
        select(Revision)
        .where(Revision.service == current.service, col(Revision.served).is_(True))
        .order_by(col(Revision.number).desc())
        .limit(limit)
    ).all()
    if number is None:
        same = (current.effective, current.image_id)  # a rollback to an equal revision would change nothing
        earlier = next((r for r in served if r.number < current.number and (r.effective, r.image_id) != same), None)
        if earlier is None:
            raise RequestError(
                409, "no_rollback_target", f"no earlier revision of {current.service} that differs has served"
            )
        return earlier
    target = next((revision for revision in served if revision.number == number), None)
    if target is None:
        known = ", ".join(str(revision.number) for revision in served)
        detail = f"cannot roll {current.service} back to revision {number}; available: {known}"
        raise RequestError(422, "unknown_revision", detail, [FieldError("to_revision", f"must be one of {known}")])
    return target
