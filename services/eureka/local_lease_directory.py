"""The local registry as a Directory: published instances, and consumers yet to fetch a change."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from services.eureka.applications import Key
from services.eureka.consumers import Consumer
from services.eureka.instance_info import LeaseStatus
from services.eureka.registry import Registry
from services.routing.port import Endpoint, RoutedService


@dataclass
class LocalLeaseDirectory:
    registry: Registry
    _addresses: dict[str, str] = field(default_factory=dict)
    """Instance → address of the serving and draining instances.

    Instances are consumers too, as long as they run.
    """

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, str]:
        registry, view = self.registry, self.registry.consumer_view
        view.services = {service.name: service for service in services}
        registry.visible = {endpoint.id for endpoint in endpoints}
        self._addresses = {endpoint.id: endpoint.address for endpoint in endpoints}
        draining = {}
        for owner in {owner for owner in view.owners.values() if owner.instance not in registry.visible}:
            if any(self._is_out(key) for key in view.keys_of(owner.instance)):
                draining[owner.instance] = owner.service
                registry.consumers.track_removal(owner.instance, registry.clock.now(), incomplete=True)
        registry.draining = set(draining)
        registry.visible |= registry.draining
        for app in {*view.descriptions, *(entry.registration.app for entry in view.registrations.entries())}:
            view.refresh(app, registry.clock.now())
        await registry.reclaim(view.services)
        registry.restored.set()
        return draining

    async def publish(self, service: RoutedService) -> None:
        self.registry.consumer_view.services[service.name] = service
        self._refresh(service.name)
        await self.registry.reclaim({service.name})

    async def unpublish(self, service: str) -> None:
        self.registry.consumer_view.services.pop(service, None)
        self.registry.released(service)
        self._refresh(service)

    async def publish_instance(self, service: RoutedService, endpoint: Endpoint) -> None:
        self.registry.visible.add(endpoint.id)
        self._addresses[endpoint.id] = endpoint.address
        self.registry.draining.discard(endpoint.id)
        self.registry.consumers.cancel_removal(endpoint.id)
        for key in self.registry.consumer_view.keys_of(endpoint.id):
            if self._is_out(key):
                await self.registry.remove_override(key, LeaseStatus.UP)
        self._refresh(endpoint.service)
        await self.registry.reclaim({endpoint.service})

    async def take_out_of_service(self, service: RoutedService, instance: str) -> None:
        self.registry.draining.add(instance)
        for key in self.registry.consumer_view.keys_of(instance):
            await self.registry.override(key, LeaseStatus.OUT_OF_SERVICE)
        self.registry.consumers.track_removal(instance, self.registry.clock.now())

    async def remove(self, service: RoutedService, instance: str, *, for_good: bool) -> None:
        for key in self.registry.consumer_view.keys_of(instance):
            await (self.registry.evict(key) if for_good else self.registry.cancel(key))
        self.registry.visible.discard(instance)
        self.registry.draining.discard(instance)
        self.registry.consumers.cancel_removal(instance)
        address = self._addresses.pop(instance, None) if for_good else self._addresses.get(instance)
        if address is not None:
            self.registry.consumers.died(address)

    async def is_registered(self, service: RoutedService, instance: str) -> bool:
        if service.advertise != "instances":
            return True
        owners = [(key, owner) for key, owner in self.registry.consumer_view.owners.items() if owner.service == service.name]
        registered = {owner.instance for key, owner in owners if self.registry.leases.applications.get(key) is not None}
        return not registered or instance in registered

    def drain_not_before(self, service: RoutedService, instance: str) -> tuple[float, str]:
        if service.advertise != "instances":
            return 0, ""
        consumers, now = self.registry.consumers, self.registry.clock.now()
        not_before = consumers.drain_not_before(instance, service.consumer_cache, now)
        return not_before, _waiting(consumers.stale_consumers(instance, service.consumer_cache, now), not_before, now)

    def _is_out(self, key: Key) -> bool:
        entry = self.registry.leases.applications.get(key)
        return entry is not None and entry.override is LeaseStatus.OUT_OF_SERVICE

    def _refresh(self, service: str) -> None:
        self.registry.consumer_view.refresh_service(service, self.registry.clock.now())


def _waiting(stale: list[Consumer], not_before: float, now: float) -> str:
    if not stale and not_before > now:
        return "waiting for consumers of the registry from before the start of Sluice"
    addresses = ", ".join(sorted({consumer.address for consumer in stale})[:3])
    if math.isinf(not_before):
        return f"waiting for {len(stale)} consumers of the registry to fetch ({addresses})"
    return f"waiting until the caches of {len(stale)} consumers of the registry expire ({addresses}; see consumer_cache)"
