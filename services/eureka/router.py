"""Registries as a Router: a drain ends only after the consumers have fetched the change.

A service is published in the local registry, or in the Eureka server that its spec names. With `advertise: stable` no
consumer has to be waited for: consumers know only the gateway, which drains on its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from services.clock import Clock
from services.routing.port import Endpoint, EndpointState, RoutedService


class LeaseDirectory(Protocol):
    """A registry that holds a service's instances. Every call is idempotent."""

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, str]:
        """Synchronise the registry at start with all serving endpoints.

        Returns the draining instances: instance → service.
        """

    async def publish(self, service: RoutedService) -> None: ...

    async def unpublish(self, service: str) -> None: ...

    async def publish_instance(self, service: RoutedService, endpoint: Endpoint) -> None:
        """Publish a serving instance to consumers. Undoes `take_out_of_service`."""

    async def take_out_of_service(self, service: RoutedService, instance: str) -> None:
        """Mark an instance out of service before this returns. Consumers may still have it in their caches."""

    async def remove(self, service: RoutedService, instance: str, *, for_good: bool) -> None:
        """Remove an instance whose container died, or with `for_good` one that is gone permanently."""

    async def is_registered(self, service: RoutedService, instance: str) -> bool:
        """Return True if the instance has registered, or if no instance of its service registers.

        Requiring a registration from such a service would leave its consumers with no instance.
        """

    def drain_not_before(self, service: RoutedService, instance: str) -> tuple[float, str]:
        """Return when no consumer sends requests to a withdrawn instance any more, and the cause of the wait.

        The time is in seconds since the epoch, infinite if not known yet. The cause is a clause for people.
        """


@dataclass
class RouterEntry:
    """State of an instance as the controller last set it."""

    service: RoutedService
    """The service as it was when consumers first saw the instance.

    A later change of the service does not make them forget it.
    """
    admitted: bool = True
    registration_seen: bool = False
    """True once the registration was seen or was not required.

    The instance then counts as serving even if the registration lapses.
    """

    @property
    def shows_instance(self) -> bool:
        """True if consumers know the instance itself."""
        return self.service.advertise == "instances" or self.service.eureka is not None


@dataclass
class RegistryRouter:
    """Router over two registries: `local` is Sluice's own, `external` are Eureka servers of others."""

    clock: Clock
    local: LeaseDirectory
    external: LeaseDirectory
    name: str = "registry"
    _services: dict[str, RoutedService] = field(default_factory=dict)
    _entries: dict[str, dict[str, RouterEntry]] = field(default_factory=dict)
    """Entries by service and instance."""

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, RoutedService | None]:
        self._services = {service.name: service for service in services}
        self._entries = {}
        for endpoint in endpoints:
            self._entries_of(endpoint.service)[endpoint.id] = RouterEntry(
                self._services[endpoint.service], registration_seen=True
            )
        for directory in (self.local, self.external):
            own = {service.name: service for service in services if self._directory_of(service) is directory}
            draining = await directory.restore(
                list(own.values()), [endpoint for endpoint in endpoints if endpoint.service in own]
            )
            for instance, service in draining.items():
                self._entries_of(service)[instance] = RouterEntry(own[service], admitted=False, registration_seen=True)
        return {}

    async def publish(self, service: RoutedService) -> None:
        self._services[service.name] = service
        for entry in self._entries_of(service.name).values():
            entry.service = entry.service if entry.shows_instance else service
        await self._directory_of(service).publish(service)

    async def unpublish(self, service: str) -> None:
        for directory in (self.local, self.external):
            await directory.unpublish(service)
        self._services.pop(service, None)
        self._entries.pop(service, None)

    async def admit(self, endpoint: Endpoint) -> None:
        entry = self._entries_of(endpoint.service).setdefault(endpoint.id, RouterEntry(self._services[endpoint.service]))
        entry.admitted = True
        await self._directory_of(entry.service).publish_instance(entry.service, endpoint)

    async def withdraw(self, service: str, instance: str) -> None:
        entry = self._entries_of(service).get(instance)
        if entry is not None and entry.admitted:
            await self._directory_of(entry.service).take_out_of_service(entry.service, instance)
            entry.admitted = False

    async def mark_dead(self, service: str, instance: str, start_id: str) -> None:
        await self._drop(service, instance, for_good=False)

    async def force_close(self, service: str, instance: str) -> int:
        return 0

    async def remove(self, service: str, instance: str) -> None:
        await self._drop(service, instance, for_good=True)

    async def observe(self, service: str) -> dict[str, EndpointState]:
        endpoint_states = {}
        for instance, entry in list(self._entries_of(service).items()):
            directory = self._directory_of(entry.service)
            if entry.admitted and not entry.registration_seen:
                entry.registration_seen = await directory.is_registered(entry.service, instance)
            if not entry.admitted:
                not_before, blocker = directory.drain_not_before(entry.service, instance)
                drained = not_before <= self.clock.now()
                endpoint_states[instance] = EndpointState(
                    "draining", drained=drained, drain_not_before=not_before, drain_blocker="" if drained else blocker
                )
            elif entry.registration_seen:
                endpoint_states[instance] = EndpointState("admitted")
        return endpoint_states

    async def observe_all(self) -> dict[str, dict[str, EndpointState]]:
        return {service: await self.observe(service) for service in list(self._entries)}

    async def _drop(self, service: str, instance: str, *, for_good: bool) -> None:
        entry = self._entries_of(service).pop(instance, None)
        routed = entry.service if entry is not None else self._services.get(service)
        if routed is not None:
            await self._directory_of(routed).remove(routed, instance, for_good=for_good)

    def _entries_of(self, service: str) -> dict[str, RouterEntry]:
        return self._entries.setdefault(service, {})

    def _directory_of(self, service: RoutedService) -> LeaseDirectory:
        return self.local if service.eureka is None else self.external
