"""What consumers are shown of what is registered.

An application that Sluice does not run is shown as it registered. One that it runs is shown as its service says
(`advertise`): `stable`, one address that never goes stale, the service's own at the gateway; `instances`, those that the
router has admitted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from services.eureka.applications import Applications, Entry, Key
from services.eureka.instance_info import Port, Registration, Status
from services.routing.port import RoutedService

OWN_METADATA = ("management.port", "jmx.port")
"""Metadata that tells of one instance, and would be wrong for the address of all."""


@dataclass(frozen=True)
class Owner:
    """The instance of ours that a registration came from."""

    service: str
    instance: str


@dataclass
class ConsumerView:
    """The book for consumers, made equal to what it should be, application by application."""

    direct: Applications
    admitted: Callable[[Owner], bool]
    applications: Applications = field(default_factory=Applications)
    owners: dict[Key, Owner] = field(default_factory=dict)
    stable: dict[str, tuple[str, Registration]] = field(default_factory=dict)
    """Application → the service that is it, and how its instances last described themselves: known even while none is
    there."""
    services: dict[str, RoutedService] = field(default_factory=dict)
    host: str = "127.0.0.1"
    """Where the gateway answers for services: the bridge's own address."""

    def registered(self, registration: Registration, owner: Owner | None, *, claim: bool) -> None:
        """Remember whose it is, before `refresh`. `claim`: the application is its owner's service."""
        key = (registration.app, registration.id)
        if owner is None:
            self.owners.pop(key, None)
            return
        self.owners[key] = owner
        if claim:
            self.stable[registration.app] = (owner.service, registration)

    def refresh(self, app: str, now: float) -> None:
        """Make the book right for one application; what is as it should be is not touched."""
        wanted = {entry.key: entry for entry in self._desired_entries(app, now)}
        for entry in [entry for entry in self.applications.entries() if entry.registration.app == app]:
            if entry.key not in wanted:
                self.applications.remove(entry.key, now)
        for key, entry in wanted.items():
            known = self.applications.get(key)
            if known is None or _differs(known, entry):
                self.applications.put(entry, now)

    def refresh_service(self, service: str, now: float) -> None:
        """The same for every application that is this service."""
        for app in self.apps_of(service):
            self.refresh(app, now)

    def claims(self, names: Collection[str]) -> dict[str, tuple[str, bool]]:
        """Find which of `names` the instances of a service registered before: the service, and whether clients that are no
        instances have leases of that application as well."""
        found: dict[str, tuple[str, bool]] = {}
        for app, (service, described) in self.stable.items():
            for name in names_of(described) & set(names):
                if name not in found or name == normal(app):
                    found[name] = (service, self._has_strangers(app))
        return found

    def shows(self, service: str) -> bool:
        """Tell whether consumers find this service under its own name."""
        return any(
            service in names_of(entry.registration) and self._service_of(entry) == service
            for entry in self.applications.entries()
        )

    def release(self, services: Collection[str]) -> list[str]:
        """Forget the applications of other services that have these services' names. Returns them."""
        lost = [app for app, (service, described) in self.stable.items() if names_of(described) & set(services) - {service}]
        for app in lost:
            del self.stable[app]
        return lost

    def describes(self, key: Key) -> bool:
        """Tell whether a lease's application is its owner's service."""
        owner = self.owners.get(key)
        return owner is not None and self.stable.get(key[0], ("", None))[0] == owner.service

    def apps_of(self, service: str) -> list[str]:
        return [app for app, (name, _) in self.stable.items() if name == service]

    def keys_of(self, instance: str) -> list[Key]:
        """What an instance of ours has registered, and has not taken back."""
        return [key for key, owner in self.owners.items() if owner.instance == instance and self.direct.get(key)]

    def _has_strangers(self, app: str) -> bool:
        return any(entry.registration.app == app and entry.key not in self.owners for entry in self.direct.entries())

    def _service_of(self, entry: Entry) -> str | None:
        """The service that a shown entry belongs to: its owner's, or the one that the entry stands for at the gateway."""
        if self.direct.get(entry.key) is None:
            return self.stable.get(entry.registration.app, (None, None))[0]
        owner = self.owners.get(entry.key)
        return owner.service if owner is not None else None

    def _desired_entries(self, app: str, now: float) -> Iterable[Entry]:
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
            yield self._gateway_entry(service, described, now)

    def _gateway_entry(self, service: RoutedService, described: Registration, now: float) -> Entry:
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


def names_of(registration: Registration) -> frozenset[str]:
    """Return the names that consumers look it up by: its application and its VIPs.

    Spring's load balancer looks up by VIP and without regard to case, so a VIP is as good as the application's name.
    """
    said = [registration.app, *(registration.vip or "").split(","), *(registration.secure_vip or "").split(",")]
    return frozenset(name for name in map(normal, said) if name)


def normal(name: str) -> str:
    """Return a name as it is compared with services' names, which are in lower case."""
    return name.strip().upper().lower()


def _differs(known: Entry, wanted: Entry) -> bool:
    return (known.registration, known.status, known.override) != (wanted.registration, wanted.status, wanted.override)
