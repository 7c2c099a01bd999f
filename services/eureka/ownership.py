"""Ownership in the registry: the service of each name, and the limits of each client.

A client is identified by its source address. Only a service's own instances may register its application. A lease may
be changed only from the address that registered it (docs/eureka.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address

from services.eureka.applications import Applications, Key
from services.eureka.consumer_view import ConsumerView, Owner, names_of, normal
from services.eureka.instance_info import InvalidRegistration, Registration
from services.eureka.leases import LeaseNotFound
from services.outbound import is_own

MAX_OF_ADDRESS, MAX_APPLICATIONS = 100, 50
"""Maximum registrations from one address of the instances' network, and applications of one service."""
Covers = Callable[[str], bool]
"""Predicate: the token that a client presented covers a name."""


class Forbidden(Exception):
    """The client may not register this application or change this lease; the message is the cause."""


@dataclass
class Ownership:
    """Rules of ownership. `leases` are the registry's.

    `network` is the instances' network, None until it exists.
    """

    leases: Applications
    consumer_view: ConsumerView
    network: IPv4Network | None = None

    def answers(self, local: str, remote: str) -> bool:
        """Return True if a client may be answered at the local address `local`.

        At the bridge's address only the instances' network and the host are answered. The engine's NAT rule may give
        the host's own connections to the bridge the source address of any other interface of the host.
        """
        return self.network is None or local != self.consumer_view.host or self._is_on_network(remote) or _is_host(remote)

    def names(self, registration: Registration) -> set[str]:
        """Return the names in a registration that may be services and on which the result of `check` depends."""
        names = names_of(registration)
        return {*names, *(service for service, _ in self.consumer_view.claims(names).values())}

    def check(
        self, registration: Registration, remote: str, owner: Owner | None, services: Collection[str], covers: Covers | None
    ) -> bool:
        """Check a registration from the address `remote`, which belongs to the instance `owner`.

        `services` are those of `names` that Sluice runs; `covers` belongs to the token that the client presented.
        Returns True if the application is from now on the owner's service. Raises InvalidRegistration or Forbidden.
        """
        key, names, app = (registration.app, registration.id), names_of(registration), normal(registration.app)
        claims = self.consumer_view.claims(names)
        claimed = {name: service for name, (service, shared) in claims.items() if service in services and not shared}
        belongs = {name: name if name in services else claimed.get(name) for name in names}
        if owner is None and covers is not None:
            _refuse((name for name in names if not covers(name)), "the token may not change it")
        others = (name for name, service in belongs.items() if service and (owner is None or service != owner.service))
        _refuse(others, "Sluice runs it, and only its own instances may register it")
        self._check_lease(key, remote, owner, own_name=belongs[app] is not None, by_token=covers is not None)
        before, _ = claims.get(app, (None, False))
        claim = owner is not None and (before not in services or before == owner.service or app in services)
        self._check_limits(key, remote, owner if claim else None)
        return claim

    def check_change(self, key: Key, remote: str, *, by_token: bool) -> None:
        """Check that a client may renew, change or cancel a lease.

        The address that registered the lease may. So may a client outside the instances' network with a token that
        covers the application, unless the lease is an instance's. Raises LeaseNotFound or Forbidden.
        """
        entry = self.leases.get(key)
        if entry is None:
            raise LeaseNotFound
        foreign_client = by_token and key not in self.consumer_view.owners and not self._is_on_network(remote)
        if entry.address != remote and not foreign_client:
            raise Forbidden(f"the lease {key[1]} of {key[0]} was registered from another address")

    def _check_lease(self, key: Key, remote: str, owner: Owner | None, *, own_name: bool, by_token: bool) -> None:
        """Check that a registration may replace the existing lease.

        Among the instances of one service (clients with a fixed id) the last registration wins, as on any Eureka
        server. Under a name that is the service's own, its instances win over any other lease.
        """
        present_owner = self.consumer_view.owners.get(key)
        same_service = owner is not None and (
            own_name or (present_owner is not None and present_owner.service == owner.service)
        )
        if not same_service and self.leases.get(key) is not None:
            self.check_change(key, remote, by_token=by_token)

    def _check_limits(self, key: Key, remote: str, owner: Owner | None) -> None:
        """Raise InvalidRegistration if the address or the service has reached its maximum.

        Without a maximum, one instance or service could fill the registry.
        """
        on_network = self._is_on_network(remote) and remote != self.consumer_view.host
        of_address = sum(entry.address == remote for entry in self.leases.entries()) if on_network else 0
        if self.leases.get(key) is None and of_address >= MAX_OF_ADDRESS:
            raise InvalidRegistration(f"Limit of {MAX_OF_ADDRESS} registrations from {remote} reached")
        new_of = owner.service if owner is not None and key[0] not in self.consumer_view.descriptions else None
        if new_of is not None and len(self.consumer_view.apps_of(new_of)) >= MAX_APPLICATIONS:
            raise InvalidRegistration(f"Limit of {MAX_APPLICATIONS} applications of the service {new_of} reached")

    def _is_on_network(self, address: str) -> bool:
        try:
            return self.network is not None and ip_address(address) in self.network
        except ValueError:
            return False


def _is_host(address: str) -> bool:
    """Return True if the address is this host's.

    The kernel drops packets from other hosts with such a source.
    """
    try:
        return is_own(ip_address(address))
    except ValueError:
        return False


def _refuse(names: Iterable[str], cause: str) -> None:
    """Raise Forbidden for the first of the names, if there is any."""
    name = min(names, default=None)
    if name is not None:
        raise Forbidden(f"the name {name} cannot be registered from here: {cause}")
