"""The registry, as the Eureka port's door and the loop both use it: leases, what is shown of them, and who looks."""

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
    """`keeper` tells whose an address is, and writes down what a restart must find again."""

    def __init__(self, clock: Clock, keeper: LeaseRepository) -> None:
        self.clock = clock
        self.consumers = Consumers()
        self.visible: set[str] = set()
        """Instances of ours that consumers may know: what the loop has admitted, until it has gone."""
        self.leaving: set[str] = set()
        """Those of them that are out of service, whatever they say."""
        self.onlookers = Consumers()
        self.restored = asyncio.Event()
        """Set when the loop has said what serves: before, the list would be less than what consumers have."""
        self._reclaimed: set[str] = set()
        """Services that consumers find under their own names, where there is nothing of others."""
        self._keeper = keeper
        self.leases = Leases(clock, changed=self._changed)
        self.shown = ConsumerView(self.leases.applications, lambda owner: owner.instance in self.visible)
        self.ownership = Ownership(self.leases.applications, self.shown)

    async def register(self, registration: Registration, remote: str, covers: Covers | None = None) -> bool:
        """Take a registration that came from the address `remote`; False when it is of one that has gone, and is ignored.
        `covers` is of the token that the client showed. Raises Refused, Forbidden."""
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
        """Remove the leases of other services' instances under these services' own names; where consumers already find the
        service itself there, all other leases."""
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
        """Sluice does not run it any more: its name is free."""
        self._reclaimed.discard(service)

    async def open(self) -> None:
        """Take up what was registered before."""
        self.leases.restore(await self._keeper.restore(self.shown))

    async def cancel(self, key: Key) -> None:
        """An instance says goodbye. Raises Unknown."""
        self.leases.cancel(key)
        await self._keep(key)

    async def evict(self, key: Key) -> None:
        """Its instance has gone for good: whatever it still says is ignored."""
        self.leases.evict(key)
        self.shown.owners.pop(key, None)
        await self._keep(key)

    async def override(self, key: Key, status: Status) -> None:
        """Somebody takes it out, or in. Raises Unknown."""
        self.leases.override(key, status)
        await self._keep(key)

    async def remove_override(self, key: Key, status: Status) -> None:
        """Raises Unknown."""
        self.leases.remove_override(key, status)
        await self._keep(key)

    async def add_metadata(self, key: Key, metadata: dict[str, str]) -> None:
        """Raises Unknown, Refused."""
        self.leases.add_metadata(key, metadata)
        await self._keep(key)

    def record_fetch(self, address: str, identity: str, *, direct: bool) -> bool:
        """Somebody is about to be given the list, or the changes. Returns whether the changes can tell it all: it fetched
        not long ago. A drain does not wait for those who look at the real instances."""
        now = self.clock.now()
        among = self.onlookers if direct else self.consumers
        before = among.fetched(address, identity, self.applications(direct=direct).version, now)
        return before is not None and now - before.fetched_at < DELTA_SERVES

    def applications(self, *, direct: bool) -> Applications:
        """What consumers are shown, or what registered."""
        return self.leases.applications if direct else self.shown.applications

    async def tick(self) -> list[Consumer]:
        """Once a second: leases that ran out, consumers that fell silent (returned)."""
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
"""Seconds: less than a change stays in the delta."""
