"""The port for everything by which requests find an instance (design.md §3): the gateway, later the registry.

The planner's rule for a leaving instance is one: stop it when every Router says `drained`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from services.spec import Eureka, Healthcheck, Route

EndpointStateName = Literal["admitted", "draining", "cut"]


class RoutingError(Exception):
    """A router could not do, or could not verify, what was asked; the message is for a person.

    `lasting`: it will not go by itself, so that there is nothing to wait for before it is told."""

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True)
class RoutedService:
    """What a router must know of a service to lead requests to it. Times in seconds."""

    name: str
    port: int
    """What its instances listen on; also the port under which `links` reach it by name."""
    internal_port: int
    """The port on the bridge's own address that is this service's alone: its `internal_url`."""
    routes: tuple[Route, ...] = ()
    linked: bool = False
    """Some service names it in its `links`: it must answer at the bridge's address under its own port as well, told from
    others by the Host header (`http://api:8000`)."""
    request_timeout: float = 60
    tunnel_timeout: float = 3600
    queue_timeout: float = 10
    upstream_keepalive: bool = True
    retry_with_idempotency_key: bool = False
    advertise: Literal["stable", "instances"] = "stable"
    """What a registry answers those who look the service up: its one address at the gateway, or its instances."""
    consumer_cache: float = 35
    """How long they keep what they looked up, beyond their fetching it."""
    eureka: Eureka | None = None
    """Somebody else's Eureka server, at which its instances register themselves."""
    healthcheck: Healthcheck | None = None
    """What most of its instances will be asked: so that a router is ready for them before the first one comes."""


@dataclass(frozen=True)
class Endpoint:
    """An instance as a router sees it. `start` names one start of its container (`<container id>@<started at>`)."""

    id: str
    service: str
    address: str
    port: int
    start: str
    healthcheck: Healthcheck = field(default_factory=Healthcheck)
    """What the router's own checks ask, once it serves; `test` checks are the engine's affair, a router then checks TCP."""


@dataclass(frozen=True)
class EndpointState:
    """What a router says of one instance.

    `admitted`: gets new requests. `draining`: gets none, finishes what it has. `cut`: what it had was ended.
    No seat at all: the router does not know it, which counts as settled.
    """

    state: EndpointStateName
    in_flight: int = 0
    """Requests in its hands, over all workers, old ones included."""
    drained: bool = False
    """Not admitted, nothing in flight on any worker, and no old worker that could still send to it."""
    healthy: bool = True
    """The router's own judgement of an admitted instance."""
    drain_not_before: float = 0
    """Seconds since the epoch until which new requests may still come to one that is withdrawn, by somebody's cache:
    infinite while that is not known. What it has in its hands is cut `drain_timeout` after that, not before."""
    drain_blocker: str = ""
    """What a withdrawn one waits for beside its requests, as a clause for people: "consumers of … may still send to it"."""


class Router(Protocol):
    """Makes requests find instances. Every call is idempotent, is read back before it returns, and raises RoutingError."""

    @property
    def name(self) -> str: ...

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> Mapping[str, RoutedService | None]:
        """At start: make exactly this so, disturbing nothing that already is. Returns the services that cannot be so beside
        the others, with what they are instead (None: left out)."""
        ...

    async def publish(self, service: RoutedService) -> None:
        """A service exists, or its settings are now these. Must come before its first `admit`."""

    async def unpublish(self, service: str) -> None:
        """A service is gone; its members have been forgotten before."""

    async def admit(self, endpoint: Endpoint) -> None:
        """New requests may go to it when this returns. Refused for a start that was `mark_dead`. Undoes a `withdraw`."""

    async def withdraw(self, service: str, instance: str) -> None:
        """No new request goes to it once this returns; what it has in its hands goes on."""

    async def mark_dead(self, service: str, instance: str, start: str) -> None:
        """Its container died: out at once, final for that start; a late `admit` of it is refused."""

    async def force_close(self, service: str, instance: str) -> int:
        """End what it still has in its hands. Returns how many requests or connections that cut."""

    async def remove(self, service: str, instance: str) -> None:
        """It has gone; keep nothing of it."""

    async def observe(self, service: str) -> dict[str, EndpointState]:
        """Instance id → seat, read from the router itself, not from memory."""
