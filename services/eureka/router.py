"""Registries as a Router: consumers that know the instances themselves are told first, and have to have heard it.

A service is looked up in the registry here, or in the Eureka server that its spec names. With `advertise: stable` nobody
has to be waited for: consumers only know the gateway, which drains on its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from services.clock import Clock
from services.routing.port import Endpoint, EndpointState, RoutedService


class Directory(Protocol):
    """A registry that a service's instances are in. Every call is idempotent."""

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, str]:
        """At start, with all that serves. Returns instance → service of those that are leaving."""

    async def publish(self, service: RoutedService) -> None: ...

    async def unpublish(self, service: str) -> None: ...

    async def publish_instance(self, service: RoutedService, endpoint: Endpoint) -> None:
        """It serves: consumers may know it. Undoes `take_out_of_service`."""

    async def take_out_of_service(self, service: RoutedService, instance: str) -> None:
        """It is out of service from when this returns; consumers may still have it in their caches."""

    async def remove(self, service: RoutedService, instance: str, *, for_good: bool) -> None:
        """Its container died, or is gone for good."""

    async def is_registered(self, service: RoutedService, instance: str) -> bool:
        """Whether it has registered, where its like do: else consumers would be left with none."""

    def drain_not_before(self, service: RoutedService, instance: str) -> tuple[float, str]:
        """When no consumer sends to a hidden one any more (seconds since the epoch, infinite while unknown), and a clause
        that tells people whom it waits for."""


@dataclass
class RouterEntry:
    """What the loop has said of an instance."""

    routed: RoutedService
    """Its service as consumers came to know the instance by it: a later change does not make them forget it."""
    admitted: bool = True
    counted: bool = False
    """Its registration has been seen, or was not needed: from then on it counts as serving even when that lapses."""

    @property
    def revealed(self) -> bool:
        """Consumers know the instance itself."""
        return self.routed.advertise == "instances" or self.routed.eureka is not None


@dataclass
class RegistryRouter:
    """`local` is the registry here, `external` the servers of others."""

    clock: Clock
    local: Directory
    external: Directory
    name: str = "registry"
    _services: dict[str, RoutedService] = field(default_factory=dict)
    _entries: dict[str, dict[str, RouterEntry]] = field(default_factory=dict)
    """By service and instance."""

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, RoutedService | None]:
        self._services = {service.name: service for service in services}
        self._entries = {}
        for endpoint in endpoints:
            self._of(endpoint.service)[endpoint.id] = RouterEntry(self._services[endpoint.service], counted=True)
        for directory in (self.local, self.external):
            own = {service.name: service for service in services if self._where(service) is directory}
            leaving = await directory.restore(
                list(own.values()), [endpoint for endpoint in endpoints if endpoint.service in own]
            )
            for instance, service in leaving.items():
                self._of(service)[instance] = RouterEntry(own[service], admitted=False, counted=True)
        return {}

    async def publish(self, service: RoutedService) -> None:
        self._services[service.name] = service
        for standing in self._of(service.name).values():
            standing.routed = standing.routed if standing.revealed else service
        await self._where(service).publish(service)

    async def unpublish(self, service: str) -> None:
        for directory in (self.local, self.external):
            await directory.unpublish(service)
        self._services.pop(service, None)
        self._entries.pop(service, None)

    async def admit(self, endpoint: Endpoint) -> None:
        standing = self._of(endpoint.service).setdefault(endpoint.id, RouterEntry(self._services[endpoint.service]))
        standing.admitted = True
        await self._where(standing.routed).publish_instance(standing.routed, endpoint)

    async def withdraw(self, service: str, instance: str) -> None:
        standing = self._of(service).get(instance)
        if standing is not None and standing.admitted:
            await self._where(standing.routed).take_out_of_service(standing.routed, instance)
            standing.admitted = False

    async def mark_dead(self, service: str, instance: str, start: str) -> None:
        await self._drop(service, instance, for_good=False)

    async def force_close(self, service: str, instance: str) -> int:
        return 0

    async def remove(self, service: str, instance: str) -> None:
        await self._drop(service, instance, for_good=True)

    async def observe(self, service: str) -> dict[str, EndpointState]:
        endpoint_states = {}
        for instance, standing in list(self._of(service).items()):
            directory = self._where(standing.routed)
            if standing.admitted and not standing.counted:
                standing.counted = await directory.is_registered(standing.routed, instance)
            if not standing.admitted:
                closes, waits_for = directory.drain_not_before(standing.routed, instance)
                drained = closes <= self.clock.now()
                endpoint_states[instance] = EndpointState(
                    "draining", drained=drained, drain_not_before=closes, drain_blocker="" if drained else waits_for
                )
            elif standing.counted:
                endpoint_states[instance] = EndpointState("admitted")
        return endpoint_states

    async def _drop(self, service: str, instance: str, *, for_good: bool) -> None:
        standing = self._of(service).pop(instance, None)
        routed = standing.routed if standing is not None else self._services.get(service)
        if routed is not None:
            await self._where(routed).remove(routed, instance, for_good=for_good)

    def _of(self, service: str) -> dict[str, RouterEntry]:
        return self._entries.setdefault(service, {})

    def _where(self, service: RoutedService) -> Directory:
        return self.local if service.eureka is None else self.external
