"""Registries as a Router: consumers that know the instances themselves are told first, and have to have heard it.

A service is looked up in the registry here, or in the Eureka server that its spec names. With `advertise: stable` nobody
has to be waited for: consumers only know the gateway, which drains on its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from services.clock import Clock
from services.routing.port import Member, RoutedService, Seat


class Directory(Protocol):
    """A registry that a service's instances are in. Every call is idempotent."""

    async def restore(self, services: list[RoutedService], members: list[Member]) -> dict[str, str]:
        """At start, with all that serves. Returns instance → service of those that are leaving."""

    async def publish(self, service: RoutedService) -> None: ...

    async def unpublish(self, service: str) -> None: ...

    async def show(self, member: Member) -> None:
        """It serves: consumers may know it. Undoes `hide`."""

    async def hide(self, service: RoutedService, instance: str) -> None:
        """It is out of service from when this returns; consumers may still have it in their caches."""

    async def drop(self, service: str, instance: str, *, for_good: bool) -> None:
        """Its container died, or is gone for good."""

    async def counts(self, service: RoutedService, instance: str) -> bool:
        """Whether it has registered, where its like do: else consumers would be left with none."""

    def closes_at(self, service: RoutedService, instance: str) -> tuple[float, str]:
        """When no consumer sends to a hidden one any more (seconds since the epoch, infinite while unknown), and a clause
        that tells people whom it waits for."""


@dataclass
class Standing:
    """What the loop has said of an instance."""

    service: str
    admitted: bool = True
    counted: bool = False
    """Its registration has been seen, or was not needed: from then on it counts as serving even when that lapses."""


@dataclass
class RegistryRouter:
    """`ours` is the registry here, `theirs` the servers of others."""

    clock: Clock
    ours: Directory
    theirs: Directory
    name: str = "registry"
    _services: dict[str, RoutedService] = field(default_factory=dict)
    _standing: dict[str, Standing] = field(default_factory=dict)

    async def restore(self, services: list[RoutedService], members: list[Member]) -> None:
        self._services = {service.name: service for service in services}
        self._standing = {member.id: Standing(member.service, counted=True) for member in members}
        for directory, foreign in ((self.ours, False), (self.theirs, True)):
            own = [service for service in services if (service.eureka is not None) is foreign]
            names = {service.name for service in own}
            leaving = await directory.restore(own, [member for member in members if member.service in names])
            self._standing |= {id: Standing(service, admitted=False, counted=True) for id, service in leaving.items()}

    async def publish(self, service: RoutedService) -> None:
        self._services[service.name] = service
        await self._where(service.name).publish(service)

    async def unpublish(self, service: str) -> None:
        await self._where(service).unpublish(service)
        self._services.pop(service, None)

    async def admit(self, member: Member) -> None:
        self._standing.setdefault(member.id, Standing(member.service)).admitted = True
        await self._where(member.service).show(member)

    async def withdraw(self, service: str, instance: str) -> None:
        standing, routed = self._standing.get(instance), self._services.get(service)
        if standing is None or not standing.admitted or routed is None:
            return
        await self._where(service).hide(routed, instance)
        standing.admitted = False

    async def lost(self, service: str, instance: str, start: str) -> None:
        self._standing.pop(instance, None)
        await self._where(service).drop(service, instance, for_good=False)

    async def cut(self, service: str, instance: str) -> int:
        return 0

    async def forget(self, service: str, instance: str) -> None:
        self._standing.pop(instance, None)
        await self._where(service).drop(service, instance, for_good=True)

    async def observe(self, service: str) -> dict[str, Seat]:
        routed = self._services.get(service)
        seats = {}
        for instance, standing in list(self._standing.items()):
            if standing.service != service or routed is None:
                continue
            if standing.admitted and not standing.counted:
                standing.counted = await self._where(service).counts(routed, instance)
            if not standing.admitted:
                closes, waits_for = self._where(service).closes_at(routed, instance)
                settled = closes <= self.clock.now()
                seats[instance] = Seat("draining", settled=settled, closes_at=closes, waits_for="" if settled else waits_for)
            elif standing.counted:
                seats[instance] = Seat("admitted")
        return seats

    def _where(self, service: str) -> Directory:
        routed = self._services.get(service)
        return self.theirs if routed is not None and routed.eureka is not None else self.ours
