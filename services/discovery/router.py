"""The registry as a Router: consumers that know the instances themselves are told first, and have to have heard it.

With `advertise: stable` there is nothing to wait for: consumers only know the gateway, which drains on its own. With
`instances` a leaving one is OUT_OF_SERVICE first, and settled when every consumer has fetched since and its own cache time
has passed.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.discovery.book import Key
from services.discovery.consumers import Consumer
from services.discovery.instance import Status
from services.discovery.registry import Registry, Standing
from services.routing.port import Member, RoutedService, Seat


@dataclass
class RegistryRouter:
    registry: Registry
    name: str = "registry"

    async def restore(self, services: list[RoutedService], members: list[Member]) -> None:
        shown = self.registry.shown
        shown.services = {service.name: service for service in services}
        self.registry.standing = {member.id: Standing(member.service, counted=True) for member in members}
        for owner in {owner for owner in shown.owners.values() if owner.instance not in self.registry.standing}:
            if any(self._is_out(key) for key in shown.keys_of(owner.instance)):
                self.registry.standing[owner.instance] = Standing(owner.service, admitted=False, counted=True)
                self.registry.consumers.leave(owner.instance, self.registry.clock.now(), blind=True)
        for app in {*shown.stable, *(entry.registration.app for entry in shown.direct.entries())}:
            shown.refresh(app, self.registry.clock.now())
        self.registry.restored.set()

    async def publish(self, service: RoutedService) -> None:
        self.registry.shown.services[service.name] = service
        self._refresh(service.name)

    async def unpublish(self, service: str) -> None:
        self.registry.shown.services.pop(service, None)
        self._refresh(service)

    async def admit(self, member: Member) -> None:
        standing = self.registry.standing.setdefault(member.id, Standing(member.service))
        standing.admitted = True
        self.registry.consumers.stay(member.id)
        for key in self.registry.shown.keys_of(member.id):
            if self._is_out(key):
                await self.registry.remove_override(key, Status.UP)
        self._refresh(member.service)

    async def withdraw(self, service: str, instance: str) -> None:
        standing = self.registry.standing.get(instance)
        if standing is None or not standing.admitted:
            return
        standing.admitted = False
        for key in self.registry.shown.keys_of(instance):
            await self.registry.override(key, Status.OUT_OF_SERVICE)
        self.registry.consumers.leave(instance, self.registry.clock.now())

    async def lost(self, service: str, instance: str, start: str) -> None:
        for key in self.registry.shown.keys_of(instance):
            await self.registry.cancel(key)
        self.registry.standing.pop(instance, None)
        self.registry.consumers.stay(instance)

    async def cut(self, service: str, instance: str) -> int:
        return 0

    async def forget(self, service: str, instance: str) -> None:
        for key in [key for key, owner in self.registry.shown.owners.items() if owner.instance == instance]:
            await self.registry.bury(key)
        self.registry.standing.pop(instance, None)
        self.registry.consumers.stay(instance)

    async def observe(self, service: str) -> dict[str, Seat]:
        return {
            instance: self._seat(service, instance, standing)
            for instance, standing in self.registry.standing.items()
            if standing.service == service and self._is_in(service, instance)
        }

    def unaware(self, service: str, instance: str) -> list[Consumer]:
        """Consumers that may still send to a leaving instance."""
        routed = self.registry.shown.services.get(service)
        if routed is None or routed.advertise != "instances":
            return []
        return self.registry.consumers.unaware(instance, routed.consumer_cache, self.registry.clock.now())

    def _seat(self, service: str, instance: str, standing: Standing) -> Seat:
        if standing.admitted:
            return Seat("admitted")
        routed, now = self.registry.shown.services.get(service), self.registry.clock.now()
        knows = routed is not None and routed.advertise == "instances"
        closes = self.registry.consumers.closes_at(instance, routed.consumer_cache, now) if routed and knows else 0
        return Seat("draining", settled=closes <= now, closes_at=closes)

    def _is_in(self, service: str, instance: str) -> bool:
        """An instance counts once it has registered, where its like do: else consumers would be left with none."""
        routed = self.registry.shown.services.get(service)
        standing = self.registry.standing[instance]
        if not standing.counted and routed is not None and routed.advertise == "instances":
            ours = [(key, owner) for key, owner in self.registry.shown.owners.items() if owner.service == service]
            registered = {owner.instance for key, owner in ours if self.registry.leases.book.get(key) is not None}
            standing.counted = not registered or instance in registered
            return standing.counted
        return True

    def _is_out(self, key: Key) -> bool:
        entry = self.registry.leases.book.get(key)
        return entry is not None and entry.override is Status.OUT_OF_SERVICE

    def _refresh(self, service: str) -> None:
        self.registry.shown.refresh_service(service, self.registry.clock.now())
