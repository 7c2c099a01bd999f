"""The local registry, used by the Eureka port and the controller: leases, their view, and consumers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import structlog

from services.clock import Clock
from services.eureka.applications import Applications, Key
from services.eureka.consumer_view import ConsumerView, names_of
from services.eureka.consumers import Consumer, Consumers
from services.eureka.instance_info import Registration, Status
from services.eureka.leases import Leases
from services.eureka.ownership import Covers, Ownership
from services.eureka.repository import LeaseRepository

log = structlog.get_logger(__name__)


class Registry:
    """The local registry.

    `keeper` finds the owner of an address and stores the state that must survive a restart.
    """

    def __init__(self, clock: Clock, keeper: LeaseRepository) -> None:
        self.clock = clock
        self.consumers = Consumers()
        self.visible: set[str] = set()
        """Instances of this Sluice that consumers may know: from their admission until their removal."""
        self.leaving: set[str] = set()
        """The visible instances that are out of service, regardless of their own status."""
        self.onlookers = Consumers()
        self.restored = asyncio.Event()
        """Set when the controller has restored the serving instances.

        Before that, the list would be incomplete.
        """
        self._reclaimed: set[str] = set()
        """Services that consumers find under their own names, from which all other leases have been removed."""
        self._keeper = keeper
        self.leases = Leases(clock, changed=self._changed)
        self.shown = ConsumerView(self.leases.applications, lambda owner: owner.instance in self.visible)
        self.ownership = Ownership(self.leases.applications, self.shown)

    async def register(self, registration: Registration, remote: str, covers: Covers | None = None) -> bool:
        """Register an instance from the address `remote`. Return False if it was evicted; then it is ignored.

        `covers` belongs to the token that the client presented. Raises InvalidRegistration or Forbidden.
        """
        key = (registration.app, registration.id)
        owner, services = await self._keeper.look_up(remote, self.ownership.names(registration))
        claim = self.ownership.check(registration, remote, owner, services, covers)
        known = self.leases.applications.get(key) is not None
        self.shown.registered(registration, owner, claim=claim)
        taken = self.leases.register(registration, remote)
        if taken and not known and owner is not None:
            log.info("registered", app=registration.app, instance=owner.instance, lease=registration.id)
        if taken and owner is not None and owner.instance in self.leaving:
            self.leases.override(key, Status.OUT_OF_SERVICE)
        if taken:
            await self._keep(key)
        if owner is not None and owner.service in names_of(registration):
            await self.reclaim({owner.service})
        return taken

    async def reclaim(self, services: Collection[str]) -> None:
        """Remove leases of other services' instances under these services' own names.

        If consumers already find the service itself under its name, all other leases are removed, too.
        """
        wanted = {service: self.shown.shows(service) for service in set(services) - self._reclaimed}
        if not wanted:
            return
        self._reclaimed |= {service for service, shows in wanted.items() if shows}
        for app in self.shown.release(wanted):
            self._changed((app, ""))
        for entry in list(self.leases.applications.entries()):
            owner = self.shown.owners.get(entry.key)
            lost = wanted.keys() & names_of(entry.registration) - {owner.service if owner is not None else ""}
            if any(owner is not None or wanted[service] for service in lost):
                log.warning("lease_reclaimed", app=entry.key[0], lease=entry.key[1], address=entry.address)
                await self.cancel(entry.key)

    def released(self, service: str) -> None:
        """Free the name of a service that Sluice no longer runs."""
        self._reclaimed.discard(service)

    async def open(self) -> None:
        """Restore the leases of before the restart."""
        self.leases.restore(await self._keeper.restore(self.shown))

    async def cancel(self, key: Key) -> None:
        """End the lease of an instance that leaves. Raises LeaseNotFound."""
        self.leases.cancel(key)
        await self._keep(key)

    async def evict(self, key: Key) -> None:
        """Evict an instance permanently; its later requests are ignored."""
        self.leases.evict(key)
        self.shown.owners.pop(key, None)
        await self._keep(key)

    async def override(self, key: Key, status: Status) -> None:
        """Override an instance's status on a client's request. Raises LeaseNotFound."""
        self.leases.override(key, status)
        await self._keep(key)

    async def remove_override(self, key: Key, status: Status) -> None:
        """Remove an override and show `status`. Raises LeaseNotFound."""
        self.leases.remove_override(key, status)
        await self._keep(key)

    async def add_metadata(self, key: Key, metadata: dict[str, str]) -> None:
        """Merge into an instance's metadata. Raises LeaseNotFound or InvalidRegistration."""
        self.leases.add_metadata(key, metadata)
        await self._keep(key)

    def record_fetch(self, address: str, identity: str, *, direct: bool) -> bool:
        """Record that a client is about to get the list or the delta.

        Returns True if the delta is enough, because the client fetched recently. A drain does not wait for clients
        that read the real instances (`direct`).
        """
        now = self.clock.now()
        among = self.onlookers if direct else self.consumers
        before = among.fetched(address, identity, self.applications(direct=direct).version, now)
        return before is not None and now - before.fetched_at < DELTA_SERVES

    def applications(self, *, direct: bool) -> Applications:
        """Return the view for consumers, or with `direct` the registrations themselves."""
        return self.leases.applications if direct else self.shown.applications

    async def tick(self) -> list[Consumer]:
        """Remove expired leases and silent consumers; return the consumers. Call once a second."""
        for key in self.leases.sweep():
            log.warning("lease_ran_out", app=key[0], lease=key[1])
            await self._keep(key)
        self.onlookers.take_gone(self.clock.now())
        gone = self.consumers.take_gone(self.clock.now())
        for consumer in gone:
            log.info("consumer_gone", address=consumer.address, identity=consumer.identity, interval=consumer.interval)
        return gone

    async def _keep(self, key: Key) -> None:
        owner = self.shown.owners.get(key)
        await self._keeper.save(key, self.leases.applications.get(key), owner, describes=self.shown.describes(key))

    def _changed(self, key: Key) -> None:
        self.shown.refresh(key[0], self.clock.now())


DELTA_SERVES = 240.0
"""Seconds since a client's last fetch for which the delta is enough.

That is less than a change stays in the delta.
"""
