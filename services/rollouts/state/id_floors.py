"""Lower bounds for new ids, for a store that is behind the engine because a backup was restored.

Ids, numbers and addresses that the engine's containers have are never used again. The containers themselves are left alone
(docs/outages.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from sqlmodel import Session

from services.engine.port import ContainerView
from services.rollouts.state.addresses import LAST
from services.store.tables import Meta, Revision, Service

HIGHEST_LABEL = "deployment_floor"
"""Meta key: the highest deployment id in a container's label."""
_HIGHEST_REVISION = "revision_floor:"
"""Meta key prefix, before a service's name: the highest revision in its containers' labels.

The value is written for services that the store does not know.
"""


def raise_id_floors(session: Session, containers: Iterable[ContainerView], unknown: Iterable[ContainerView]) -> None:
    """Raise the next deployment, revision and instance numbers and the next address above those in use.

    `containers` are all of Sluice's containers on the engine; `unknown` are those of them that the store does not know.
    """
    highest = max((view.deployment for view in containers), default=0)
    session.merge(Meta(key=HIGHEST_LABEL, value=str(highest)))
    for view in unknown:
        _raise_last_address(session, view.address)
        service = session.get(Service, view.service)
        if service is None:
            _raise_number(session, _HIGHEST_REVISION + view.service, view.revision)
        elif service.next_revision <= view.revision:
            service.next_revision = view.revision + 1
            session.add(service)
        revision = session.get(Revision, (view.service, view.revision))
        number = int(view.instance.rpartition("-")[2])
        if revision is not None and revision.next_instance <= number:
            revision.next_instance = number + 1
            session.add(revision)


def first_free_revision(session: Session, service: str) -> int:
    """Return the first revision number for a service that the store does not know yet."""
    row = session.get(Meta, _HIGHEST_REVISION + service)
    return int(row.value) + 1 if row is not None else 1


def _raise_last_address(session: Session, address: str | None) -> None:
    last = session.get(Meta, LAST)
    if address is not None and (last is None or IPv4Address(last.value) < IPv4Address(address)):
        session.merge(Meta(key=LAST, value=address))


def _raise_number(session: Session, key: str, number: int) -> None:
    row = session.get(Meta, key)
    if row is None or int(row.value) < number:
        session.merge(Meta(key=key, value=str(number)))
