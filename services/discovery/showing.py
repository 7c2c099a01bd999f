"""What consumers are shown of what is registered.

An application that Sluice does not run is shown as it registered. One that it runs is shown as its service says
(`advertise`): `stable`, one address that never goes stale, the service's own at the gateway; `instances`, those that the
router has admitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from services.discovery.book import Book, Entry, Key
from services.discovery.instance import Port, Registration, Status
from services.routing.port import RoutedService

OWN_METADATA = ("management.port", "jmx.port")
"""Metadata that tells of one instance, and would be wrong for the address of all."""


@dataclass(frozen=True)
class Owner:
    """The instance of ours that a registration came from."""

    service: str
    instance: str


@dataclass
class Shown:
    """The book for consumers, made equal to what it should be, application by application."""

    direct: Book
    admitted: Callable[[Owner], bool]
    book: Book = field(default_factory=Book)
    owners: dict[Key, Owner] = field(default_factory=dict)
    stable: dict[str, tuple[str, Registration]] = field(default_factory=dict)
    """Application → the service that is it, and how its instances last described themselves: known even while none is
    there."""
    services: dict[str, RoutedService] = field(default_factory=dict)
    host: str = "127.0.0.1"
    """Where the gateway answers for services: the bridge's own address."""

    def registered(self, registration: Registration, owner: Owner | None) -> None:
        """Remember whose it is, before `refresh`."""
        key = (registration.app, registration.id)
        if owner is None:
            self.owners.pop(key, None)
            return
        self.owners[key] = owner
        self.stable[registration.app] = (owner.service, registration)

    def refresh(self, app: str, now: float) -> None:
        """Make the book right for one application; what is as it should be is not touched."""
        wanted = {entry.key: entry for entry in self._wanted(app, now)}
        for entry in [entry for entry in self.book.entries() if entry.registration.app == app]:
            if entry.key not in wanted:
                self.book.remove(entry.key, now)
        for key, entry in wanted.items():
            known = self.book.get(key)
            if known is None or _differs(known, entry):
                self.book.put(entry, now)

    def refresh_service(self, service: str, now: float) -> None:
        """The same for every application that is this service."""
        for app in self.apps_of(service):
            self.refresh(app, now)

    def apps_of(self, service: str) -> list[str]:
        return [app for app, (name, _) in self.stable.items() if name == service]

    def keys_of(self, instance: str) -> list[Key]:
        """What an instance of ours has registered, and has not taken back."""
        return [key for key, owner in self.owners.items() if owner.instance == instance and self.direct.get(key)]

    def _wanted(self, app: str, now: float) -> Iterable[Entry]:
        for entry in self.direct.entries():
            if entry.registration.app != app:
                continue
            owner = self.owners.get(entry.key)
            service = self.services.get(owner.service) if owner is not None else None
            if owner is None or (service is not None and service.advertise == "instances" and self.admitted(owner)):
                yield entry
        name, described = self.stable.get(app, ("", None))
        service = self.services.get(name)
        if service is not None and described is not None and service.advertise == "stable":
            yield self._at_the_gateway(service, described, now)

    def _at_the_gateway(self, service: RoutedService, described: Registration, now: float) -> Entry:
        where = f"http://{self.host}:{service.internal_port}"
        metadata = {key: value for key, value in described.metadata.items() if key not in OWN_METADATA}
        registration = replace(
            described,
            id=f"{self.host}:{service.name}:{service.internal_port}",
            host=self.host,
            ip=self.host,
            status=Status.UP,
            port=Port(service.internal_port, True),
            secure_port=Port(443, False),
            secure_vip=None,
            metadata={**metadata, "sluice.service": service.name},
            home_page=f"{where}/",
            status_page=f"{where}/actuator/info",
            health_check=f"{where}/actuator/health",
            secure_health_check=None,
            dirty=None,
        )
        ms = int(now * 1000)
        return Entry(registration, Status.UP, registered_at=ms, renewed_at=ms, up_at=ms)


def _differs(known: Entry, wanted: Entry) -> bool:
    return (known.registration, known.status, known.override) != (wanted.registration, wanted.status, wanted.override)
