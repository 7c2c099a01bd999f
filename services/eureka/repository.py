"""Persistence of the registry: leases survive a restart, so no consumer ever gets an empty list."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import structlog
from sqlmodel import Session, col, select

from services.eureka.applications import Entry, Key
from services.eureka.codec import json_of
from services.eureka.consumer_view import ConsumerView, Owner
from services.eureka.instance_info import InvalidRegistration, LeaseStatus, Registration, read
from services.store.database import Store
from services.store.tables import Application, Instance, Lease, Service

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LeaseRepository:
    store: Store

    async def look_up(self, address: str, names: Collection[str]) -> tuple[Owner | None, set[str]]:
        """Return the live instance of this Sluice at the address, and those of `names` that are services."""

        def find(session: Session) -> tuple[Owner | None, set[str]]:
            living = select(Instance).where(Instance.address == address, col(Instance.stopped_at).is_(None))
            row = session.exec(living).first()
            services = select(Service.name).where(col(Service.name).in_(names), col(Service.removed).is_(False))
            return Owner(row.service, row.id) if row is not None else None, set(session.exec(services))

        return await self.store.read(find)

    async def save(self, key: Key, entry: Entry | None, owner: Owner | None, *, describes: bool = False) -> None:
        """Write the current state of a lease, or delete the lease if `entry` is None.

        `describes`: the lease's application is its owner's service.
        """

        def write(session: Session) -> None:
            if entry is None:
                row = session.get(Lease, key)
                if row is not None:
                    session.delete(row)
                return
            document = _document(entry)
            session.merge(
                Lease(
                    app=key[0],
                    id=key[1],
                    instance=owner.instance if owner is not None else None,
                    address=entry.address,
                    registration=document,
                    status=entry.status,
                    override=entry.override,
                    registered_at=entry.registered_at,
                    up_at=entry.up_at,
                )
            )
            if owner is not None and describes:
                session.merge(Application(name=key[0], service=owner.service, registration=document))

        await self.store.write(write)

    async def restore(self, consumer_view: ConsumerView) -> list[Entry]:
        """Return the entries that were registered when Sluice stopped.

        Also restores in `consumer_view` the owner of each lease and the service of each application.
        """

        def load(session: Session) -> tuple[list[tuple[Lease, Instance | None]], list[Application]]:
            owned = select(Lease, Instance).join(Instance, col(Instance.id) == Lease.instance, isouter=True)
            return [(lease, instance) for lease, instance in session.exec(owned)], list(session.exec(select(Application)))

        leases, applications = await self.store.read(load)
        for application in applications:
            if (described := _registration(application.name, application.registration)) is not None:
                consumer_view.descriptions[application.name] = (application.service, described)
        entries = []
        for lease, instance in leases:
            registration = _registration(lease.app, lease.registration)
            if registration is None:
                continue
            entry = Entry(
                registration,
                LeaseStatus(lease.status),
                LeaseStatus(lease.override),
                registered_at=lease.registered_at,
                up_at=lease.up_at,
                address=lease.address or (instance.address if instance is not None else registration.ip),
            )
            entries.append(entry)
            if instance is not None:
                consumer_view.owners[entry.key] = Owner(instance.service, instance.id)
        return entries


def _document(entry: Entry) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json_of(entry))["instance"]
    return {**document, "status": entry.registration.status}


def _registration(app: str, document: dict[str, Any]) -> Registration | None:
    """Return a stored registration, or None if it is not accepted any more.

    Its client then gets a 404 and registers again.
    """
    try:
        return read(app, {"instance": document})
    except InvalidRegistration as error:
        log.warning("lease_not_restored", app=app, error=str(error))
        return None
