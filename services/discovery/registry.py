"""The registry, as the Eureka port's door and the loop both use it: leases, what is shown of them, and who looks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from services.clock import Clock
from services.discovery.book import Book, Key
from services.discovery.consumers import Consumer, Consumers
from services.discovery.instance import Registration, Status
from services.discovery.leases import Leases
from services.discovery.showing import Owner, Shown

log = structlog.get_logger(__name__)


@dataclass
class Standing:
    """An admitted or leaving instance of ours, as the loop has told the registry."""

    service: str
    admitted: bool = True
    counted: bool = False
    """Its registration has been seen, or was not needed: from then on it counts as serving even when that lapses."""


class Registry:
    """`whose` tells the instance of ours that has an address, if one has."""

    def __init__(self, clock: Clock, whose: Callable[[str], Awaitable[Owner | None]]) -> None:
        self.clock = clock
        self.consumers = Consumers()
        self.standing: dict[str, Standing] = {}
        self._whose = whose
        self.leases = Leases(clock, changed=self._changed)
        self.shown = Shown(self.leases.book, lambda owner: owner.instance in self.standing)

    async def register(self, registration: Registration, remote: str) -> bool:
        """Take a registration that came from the address `remote`; False when it is of one that has gone, and is ignored.
        Raises Refused."""
        owner = await self._whose(registration.ip) or await self._whose(remote)
        known = self.leases.book.get((registration.app, registration.id)) is not None
        self.shown.registered(registration, owner)
        taken = self.leases.register(registration)
        if taken and not known and owner is not None:
            log.info("registered", app=registration.app, instance=owner.instance, lease=registration.id)
        leaving = owner is not None and (seat := self.standing.get(owner.instance)) is not None and not seat.admitted
        if taken and leaving:
            self.leases.override((registration.app, registration.id), Status.OUT_OF_SERVICE)
        return taken

    def fetched(self, address: str, identity: str, now: float) -> bool:
        """A consumer was given the list. Returns whether a delta can tell it all: it fetched not long ago."""
        before = self.consumers.fetched(address, identity, self.shown.book.version, now)
        return before is not None and now - before.fetched_at < DELTA_SERVES

    def book(self, *, direct: bool) -> Book:
        """What consumers are shown, or what registered."""
        return self.leases.book if direct else self.shown.book

    def tick(self) -> list[Consumer]:
        """Once a second: leases that ran out, consumers that fell silent (returned)."""
        for app, lease in self.leases.sweep():
            log.warning("lease_ran_out", app=app, lease=lease)
        gone = self.consumers.take_gone(self.clock.now())
        for consumer in gone:
            log.info("consumer_gone", address=consumer.address, identity=consumer.identity, interval=consumer.interval)
        return gone

    def _changed(self, key: Key) -> None:
        self.shown.refresh(key[0], self.clock.now())


DELTA_SERVES = 240.0
"""Seconds: less than a change stays in the delta."""
