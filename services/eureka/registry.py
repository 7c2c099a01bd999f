"""The local registry, used by the Eureka port and the controller: leases, their view, and consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog

from services.clock import Clock
from services.eureka.applications import Applications, Key
from services.eureka.consumer_view import ConsumerView, names_of
from services.eureka.consumers import Consumer, Consumers
from services.eureka.instance_info import LeaseStatus, Registration
from services.eureka.leases import Leases
from services.eureka.ownership import Covers, Ownership
from services.eureka.repository import LeaseRepository

log = structlog.get_logger(__name__)


class Registry:
    """The local registry.

    `repository` finds the owner of an address and stores the state that must survive a restart.
    """

    def __init__(self, clock: Clock, repository: LeaseRepository) -> None:
        self.clock = clock
        self.consumers = Consumers()
        self.visible: set[str] = set()
        """Instances of this Sluice that consumers may know: from their admission until their removal."""
        self.draining: set[str] = set()
        """The visible instances that are out of service, regardless of their own status."""
        self.direct_readers = Consumers()
        self.restored = asyncio.Event()
        """Set when the controller has restored the serving instances.

        Before that, the list would be incomplete.
        """
        self._reclaimed: set[str] = set()
        """Services that consumers find under their own names, from which all other leases have been removed."""
        self._repository = repository
        self.leases = Leases(clock, changed=self._changed)
        self.consumer_view = ConsumerView(self.leases.applications, lambda owner: owner.instance in self.visible)
        self.ownership = Ownership(self.leases.applications, self.consumer_view)

    async def register(self, registration: Registration, remote: str, covers: Covers | None = None) -> bool:
        """Register an instance from the address `remote`. Return False if it was evicted; then it is ignored.

        `covers` belongs to the token that the client presented. Raises InvalidRegistration or Forbidden.
        """
        key = (registration.app, registration.id)
        owner, services = await self._repository.look_up(remote, self.ownership.names(registration))
        claim = self.ownership.check(registration, remote, owner, services, covers)
        known = self.leases.applications.get(key) is not None
        self.consumer_view.record_registration(registration, owner, claim=claim)
        accepted = self.leases.register(registration, remote)
        if accepted and not known and owner is not None:
            log.info("registered", app=registration.app, instance=owner.instance, lease=registration.id)
        if accepted and owner is not None and owner.instance in self.draining:
            self.leases.override(key, LeaseStatus.OUT_OF_SERVICE)
        if accepted:
            await self._save(key)
        if owner is not None and owner.service in names_of(registration):
            await self.reclaim({owner.service})
        return accepted

    async def reclaim(self, services: Collection[str]) -> None:
        """Remove leases of other services' instances under these services' own names.

        If consumers already find the service itself under its name, all other leases are removed, too.
        """
        shown_by_service = {service: self.consumer_view.shows(service) for service in set(services) - self._reclaimed}
        if not shown_by_service:
            return
        self._reclaimed |= {service for service, shows in shown_by_service.items() if shows}
        for app in self.consumer_view.release(shown_by_service):
            self._changed((app, ""))
        for entry in list(self.leases.applications.entries()):
            owner = self.consumer_view.owners.get(entry.key)
            claimed = shown_by_service.keys() & names_of(entry.registration) - {owner.service if owner is not None else ""}
            if any(owner is not None or shown_by_service[service] for service in claimed):
                log.warning("lease_reclaimed", app=entry.key[0], lease=entry.key[1], address=entry.address)
                await self.cancel(entry.key)

    def released(self, service: str) -> None:
        """Free the name of a service that Sluice no longer runs."""
        self._reclaimed.discard(service)

    async def open(self) -> None:
        """Restore the leases of before the restart."""
        self.leases.restore(await self._repository.restore(self.consumer_view))

    async def cancel(self, key: Key) -> None:
        """End the lease of an instance that leaves. Raises LeaseNotFound."""
        self.leases.cancel(key)
        await self._save(key)

    async def evict(self, key: Key) -> None:
        """Evict an instance permanently; its later requests are ignored."""
        self.leases.evict(key)
        self.consumer_view.owners.pop(key, None)
        await self._save(key)

    async def override(self, key: Key, status: LeaseStatus) -> None:
        """Override an instance's status on a client's request. Raises LeaseNotFound."""
        self.leases.override(key, status)
        await self._save(key)

    async def remove_override(self, key: Key, status: LeaseStatus) -> None:
        """Remove an override and show `status`. Raises LeaseNotFound."""
        self.leases.remove_override(key, status)
        await self._save(key)

    async def add_metadata(self, key: Key, metadata: dict[str, str]) -> None:
        """Merge into an instance's metadata. Raises LeaseNotFound or InvalidRegistration."""
        self.leases.add_metadata(key, metadata)
        await self._save(key)

    def record_fetch(self, address: str, identity: str, *, direct: bool) -> bool:
        """Record that a client is about to get the list or the delta.

        Returns True if the delta is enough, because the client fetched recently. A drain does not wait for clients
        that read the real instances (`direct`).
        """
        now = self.clock.now()
        readers = self.direct_readers if direct else self.consumers
        before = readers.fetched(address, identity, self.applications(direct=direct).version, now)
        return before is not None and now - before.fetched_at < MAX_DELTA_AGE

    def applications(self, *, direct: bool) -> Applications:
        """Return the view for consumers, or with `direct` the registrations themselves."""
        return self.leases.applications if direct else self.consumer_view.applications

    async def tick(self) -> list[Consumer]:
        """Remove expired leases and silent consumers; return the consumers. Call once a second."""
        for key in self.leases.sweep():
            log.warning("lease_ran_out", app=key[0], lease=key[1])
            await self._save(key)
        self.direct_readers.take_gone(self.clock.now())
        gone = self.consumers.take_gone(self.clock.now())
        for consumer in gone:
            log.info("consumer_gone", address=consumer.address, identity=consumer.identity, interval=consumer.interval)
        return gone

    async def _save(self, key: Key) -> None:
        owner = self.consumer_view.owners.get(key)
        await self._repository.save(
            key, self.leases.applications.get(key), owner, describes=self.consumer_view.describes(key)
        )

    def _changed(self, key: Key) -> None:
        self.consumer_view.refresh(key[0], self.clock.now())


MAX_DELTA_AGE = 240.0
"""Seconds since a client's last fetch for which the delta is enough.

That is less than a change stays in the delta.
"""
