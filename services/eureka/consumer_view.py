"""The registry as consumers see it.

An application that Sluice does not run is shown as registered. An application that Sluice runs is shown as its
service's `advertise` says: `stable` shows one address that never goes stale, the service's own at the gateway;
`instances` shows the instances that the router has admitted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from services.eureka.applications import Applications, Entry, Key
from services.eureka.instance_info import LeaseStatus, Port, Registration
from services.routing.port import RoutedService

OWN_METADATA = ("management.port", "jmx.port")
"""Metadata that describes one instance and would be wrong for the service's common address."""


@dataclass(frozen=True)
class Owner:
    """The instance of this Sluice that sent a registration."""

    service: str
    instance: str


@dataclass
class ConsumerView:
    """The list for consumers, updated application by application from the registrations (`registrations`)."""

    registrations: Applications
    admitted: Callable[[Owner], bool]
    applications: Applications = field(default_factory=Applications)
    owners: dict[Key, Owner] = field(default_factory=dict)
    descriptions: dict[str, tuple[str, Registration]] = field(default_factory=dict)
    """Application → its service and the latest description by one of its instances.

    An entry remains if no instance is registered.
    """
    services: dict[str, RoutedService] = field(default_factory=dict)
    host: str = "127.0.0.1"
    """Address at which the gateway serves services for consumers: the bridge's own address."""

    def record_registration(self, registration: Registration, owner: Owner | None, *, claim: bool) -> None:
        """Record the owner of a registration. Call before `refresh`.

        `claim`: the application is its owner's service.
        """
        key = (registration.app, registration.id)
        if owner is None:
            self.owners.pop(key, None)
            return
        self.owners[key] = owner
        if claim:
            self.descriptions[registration.app] = (owner.service, registration)

    def refresh(self, app: str, now: float) -> None:
        """Update the list for one application. Entries that are current are not changed."""
        desired = {entry.key: entry for entry in self._desired_entries(app, now)}
        for entry in [entry for entry in self.applications.entries() if entry.registration.app == app]:
            if entry.key not in desired:
                self.applications.remove(entry.key, now)
        for key, entry in desired.items():
            current = self.applications.get(key)
            if current is None or _differs(current, entry):
                self.applications.put(entry, now)

    def refresh_service(self, service: str, now: float) -> None:
        """Update the list for every application of the service."""
        for app in self.apps_of(service):
            self.refresh(app, now)

    def claims(self, names: Collection[str]) -> dict[str, tuple[str, bool]]:
        """Return those of `names` under which instances of a service have registered.

        Each maps to the service, and to whether clients that are no instances hold leases of that application too.
        """
        claims: dict[str, tuple[str, bool]] = {}
        for app, (service, described) in self.descriptions.items():
            for name in names_of(described) & set(names):
                if name not in claims or name == normal(app):
                    claims[name] = (service, self._has_foreign_leases(app))
        return claims

    def shows(self, service: str) -> bool:
        """Return True if consumers find this service under its own name."""
        return any(
            service in names_of(entry.registration) and self._service_of(entry) == service
            for entry in self.applications.entries()
        )

    def release(self, services: Collection[str]) -> list[str]:
        """Forget the applications of other services that have these services' names, and return them."""
        released = [
            app for app, (service, described) in self.descriptions.items() if names_of(described) & set(services) - {service}
        ]
        for app in released:
            del self.descriptions[app]
        return released

    def describes(self, key: Key) -> bool:
        """Return True if a lease's application is its owner's service."""
        owner = self.owners.get(key)
        return owner is not None and self.descriptions.get(key[0], ("", None))[0] == owner.service

    def apps_of(self, service: str) -> list[str]:
        return [app for app, (name, _) in self.descriptions.items() if name == service]

    def keys_of(self, instance: str) -> list[Key]:
        """Return the keys of the leases that an instance of this Sluice has registered and not cancelled."""
        return [key for key, owner in self.owners.items() if owner.instance == instance and self.registrations.get(key)]

    def _has_foreign_leases(self, app: str) -> bool:
        return any(entry.registration.app == app and entry.key not in self.owners for entry in self.registrations.entries())

    def _service_of(self, entry: Entry) -> str | None:
        """Return the service of a shown entry: its owner's, or the one whose gateway address it is."""
        if self.registrations.get(entry.key) is None:
            return self.descriptions.get(entry.registration.app, (None, None))[0]
        owner = self.owners.get(entry.key)
        return owner.service if owner is not None else None

    def _desired_entries(self, app: str, now: float) -> Iterable[Entry]:
        for entry in self.registrations.entries():
            if entry.registration.app != app:
                continue
            owner = self.owners.get(entry.key)
            service = self.services.get(owner.service) if owner is not None else None
            if owner is None or (service is not None and service.advertise == "instances" and self.admitted(owner)):
                yield entry
        name, described = self.descriptions.get(app, ("", None))
        service = self.services.get(name)
        if service is not None and described is not None and service.advertise == "stable":
            yield self._gateway_entry(service, described, now)

    def _gateway_entry(self, service: RoutedService, described: Registration, now: float) -> Entry:
        url = f"http://{self.host}:{service.internal_port}"
        metadata = {key: value for key, value in described.metadata.items() if key not in OWN_METADATA}
        registration = replace(
            described,
            id=f"{self.host}:{service.name}:{service.internal_port}",
            host=self.host,
            ip=self.host,
            status=LeaseStatus.UP,
            port=Port(service.internal_port, True),
            secure_port=Port(443, False),
            secure_vip=None,
            metadata={**metadata, "sluice.service": service.name},
            home_page=f"{url}/",
            status_page=f"{url}/actuator/info",
            health_check=f"{url}/actuator/health",
            secure_health_check=None,
            dirty=None,
        )
        ms = int(now * 1000)
        return Entry(registration, LeaseStatus.UP, registered_at=ms, renewed_at=ms, up_at=ms)


def names_of(registration: Registration) -> frozenset[str]:
    """Return the names under which consumers look up a registration: its application and its VIPs.

    Spring's load balancer looks up by VIP, ignoring case, so a VIP is equivalent to the application's name.
    """
    names = [registration.app, *(registration.vip or "").split(","), *(registration.secure_vip or "").split(",")]
    return frozenset(name for name in map(normal, names) if name)


def normal(name: str) -> str:
    """Return a name in lower case, as service names are, for comparison."""
    return name.strip().upper().lower()


def _differs(current: Entry, desired: Entry) -> bool:
    return (current.registration, current.status, current.override) != (
        desired.registration,
        desired.status,
        desired.override,
    )
