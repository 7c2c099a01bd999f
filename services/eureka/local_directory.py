"""The local registry as a Directory: published instances, and consumers yet to fetch a change."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from services.eureka.applications import Key
from services.eureka.consumers import Consumer
from services.eureka.instance_info import Status
from services.eureka.registry import Registry
from services.routing.port import Endpoint, RoutedService


@dataclass
class LocalDirectory:
    registry: Registry
    _addresses: dict[str, str] = field(default_factory=dict)
    """Instance → address of the serving and draining instances.

    Instances are consumers too, as long as they run.
    """

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, str]:
        registry, shown = self.registry, self.registry.shown
        shown.services = {service.name: service for service in services}
        registry.visible = {endpoint.id for endpoint in endpoints}
        self._addresses = {endpoint.id: endpoint.address for endpoint in endpoints}
        leaving = {}
        for owner in {owner for owner in shown.owners.values() if owner.instance not in registry.visible}:
            if any(self._is_out(key) for key in shown.keys_of(owner.instance)):
                leaving[owner.instance] = owner.service
                registry.consumers.track_removal(owner.instance, registry.clock.now(), blind=True)
        registry.leaving = set(leaving)
        registry.visible |= registry.leaving
        for app in {*shown.stable, *(entry.registration.app for entry in shown.direct.entries())}:
            shown.refresh(app, registry.clock.now())
        await registry.reclaim(shown.services)
        registry.restored.set()
        return leaving

    async def publish(self, service: RoutedService) -> None:
        self.registry.shown.services[service.name] = service
        self._refresh(service.name)
        await self.registry.reclaim({service.name})

    async def unpublish(self, service: str) -> None:
        self.registry.shown.services.pop(service, None)
        self.registry.released(service)
        self._refresh(service)

    async def publish_instance(self, service: RoutedService, endpoint: Endpoint) -> None:
        self.registry.visible.add(endpoint.id)
        self._addresses[endpoint.id] = endpoint.address
        self.registry.leaving.discard(endpoint.id)
        self.registry.consumers.cancel_removal(endpoint.id)
        for key in self.registry.shown.keys_of(endpoint.id):
            if self._is_out(key):
                await self.registry.remove_override(key, Status.UP)
        self._refresh(endpoint.service)
        await self.registry.reclaim({endpoint.service})

    async def take_out_of_service(self, service: RoutedService, instance: str) -> None:
        self.registry.leaving.add(instance)
        for key in self.registry.shown.keys_of(instance):
            await self.registry.override(key, Status.OUT_OF_SERVICE)
        self.registry.consumers.track_removal(instance, self.registry.clock.now())

    async def remove(self, service: RoutedService, instance: str, *, for_good: bool) -> None:
        for key in self.registry.shown.keys_of(instance):
            await (self.registry.evict(key) if for_good else self.registry.cancel(key))
        self.registry.visible.discard(instance)
        self.registry.leaving.discard(instance)
        self.registry.consumers.cancel_removal(instance)
        address = self._addresses.pop(instance, None) if for_good else self._addresses.get(instance)
        if address is not None:
            self.registry.consumers.died(address)

    async def is_registered(self, service: RoutedService, instance: str) -> bool:
        if service.advertise != "instances":
            return True
        owners = [(key, owner) for key, owner in self.registry.shown.owners.items() if owner.service == service.name]
        registered = {owner.instance for key, owner in owners if self.registry.leases.applications.get(key) is not None}
        return not registered or instance in registered

    def drain_not_before(self, service: RoutedService, instance: str) -> tuple[float, str]:
        if service.advertise != "instances":
            return 0, ""
        consumers, now = self.registry.consumers, self.registry.clock.now()
        closes = consumers.drain_not_before(instance, service.consumer_cache, now)
        return closes, _waiting(consumers.stale_consumers(instance, service.consumer_cache, now), closes, now)

    def _is_out(self, key: Key) -> bool:
        entry = self.registry.leases.applications.get(key)
        return entry is not None and entry.override is Status.OUT_OF_SERVICE

    def _refresh(self, service: str) -> None:
        self.registry.shown.refresh_service(service, self.registry.clock.now())


def _waiting(unaware: list[Consumer], closes: float, now: float) -> str:
    if not unaware and closes > now:
        return "waiting for consumers of the registry that may have been there before Sluice started"
    who = ", ".join(sorted({consumer.address for consumer in unaware})[:3])
    if math.isinf(closes):
        return f"waiting for {len(unaware)} consumers of the registry to fetch ({who})"
    return f"waiting until {len(unaware)} consumers of the registry have forgotten what leaves ({who}; see consumer_cache)"
