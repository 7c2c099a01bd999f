"""The interface of everything by which requests find an instance: the gateway and Eureka registries.

The planner has one rule for a withdrawn instance: stop the instance when every router says `drained`
(docs/why-drain-by-acknowledgement.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from services.spec import Eureka, Healthcheck, Route

EndpointStateName = Literal["admitted", "draining", "closed"]


class RoutingError(Exception):
    """A router could not do a request, or could not verify it; the message is for a person.

    `lasting`: the problem will not go away by itself, so it is reported without waiting.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True)
class RoutedService:
    """Settings of a service that a router needs to route its requests; times are in seconds."""

    name: str
    port: int
    """Port on which its instances listen, and under which `links` reach the service by name."""
    internal_port: int
    """Port on the bridge's address that belongs to this service alone: its `internal_url`."""
    routes: tuple[Route, ...] = ()
    linked: bool = False
    """Whether another service names this one in its `links`.

    If so, the service must answer at the bridge's address under its own port as well. The Host header (`http://api:8000`)
    distinguishes it from other services on that port.
    """
    request_timeout: float = 60
    tunnel_timeout: float = 3600
    queue_timeout: float = 10
    """0 while no instance will begin to serve in time: requests without an available instance are then refused at once."""
    upstream_keepalive: bool = True
    retry_with_idempotency_key: bool = False
    advertise: Literal["stable", "instances"] = "stable"
    """Answer of a registry to consumers: the service's one address at the gateway, or its instances."""
    consumer_cache: float = 35
    """Seconds that consumers may use an old answer after they have fetched a newer one."""
    eureka: Eureka | None = None
    """External Eureka server at which the service's instances register themselves."""
    healthcheck: Healthcheck | None = None
    """Health check of most of the instances, so that a router is prepared before the first one comes."""


@dataclass(frozen=True)
class Endpoint:
    """An instance as a router sees it.

    `start_id` names one start of its container (`<container id>@<started at>`).
    """

    id: str
    service: str
    address: str
    port: int
    start_id: str
    healthcheck: Healthcheck = field(default_factory=Healthcheck)
    """Check that the router itself makes once the instance is admitted.

    The engine makes `test` checks; a router then checks TCP.
    """


@dataclass(frozen=True)
class EndpointState:
    """State of one instance in a router.

    `admitted`: gets new requests. `draining`: gets none and finishes those in flight. `closed`: force-closed or disabled.
    An instance without a state is unknown to the router, which counts as drained.
    """

    state: EndpointStateName
    in_flight: int = 0
    """Requests in flight over all workers, including replaced ones."""
    drained: bool = False
    """Not admitted, nothing in flight on any worker, and no replaced worker could still send to it."""
    healthy: bool = True
    """Result of the router's own checks of an admitted instance."""
    checked: bool = field(default=False, compare=False)
    """Whether the router has checked the instance, so that `healthy` is a result and no assumption."""
    check: str = ""
    """The router's own words for the failed check (`L7TOUT after 2000 ms`, `L7STS 503`, `L4CON`); empty while healthy."""
    check_status: int | None = None
    """HTTP status of the failed check's answer, if there was one."""
    drain_not_before: float = 0
    """Seconds since the epoch until which a withdrawn instance may still get new requests from caches.

    The value is infinite while the time is not known. Requests in flight are force-closed `drain_timeout` after this time,
    not before.
    """
    drain_blocker: str = ""
    """Reason, besides its requests, that a withdrawn instance is not drained yet.

    The reason is a clause for people: "consumers of … may still send to it".
    """


class Router(Protocol):
    """A router, through which requests find instances.

    Every call is idempotent, is read back before it returns, and raises RoutingError.
    """

    @property
    def name(self) -> str: ...

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> Mapping[str, RoutedService | None]:
        """Make the router's state exactly this at start, without disturbing what already matches.

        Returns the services that conflict with the others, each with its state instead (None: left out).
        """
        ...

    async def publish(self, service: RoutedService) -> None:
        """Add a service or change its settings. This must precede the first `admit` of the service."""

    async def unpublish(self, service: str) -> None:
        """Remove a service, whose endpoints have been removed before."""

    async def admit(self, endpoint: Endpoint) -> None:
        """Allow new requests to the endpoint; they may arrive when this returns. Undoes a `withdraw`.

        Refused for a start that was marked dead with `mark_dead`.
        """

    async def withdraw(self, service: str, instance: str) -> None:
        """Stop new requests to the instance before returning; requests in flight continue."""

    async def mark_dead(self, service: str, instance: str, start_id: str) -> None:
        """Stop all requests to an instance whose container died, immediately.

        This is final for that start: a late `admit` of it is refused.
        """

    async def force_close(self, service: str, instance: str) -> int:
        """End the instance's requests in flight. Return how many requests or connections were ended."""

    async def remove(self, service: str, instance: str) -> None:
        """Remove everything about an instance that does not exist any more."""

    async def observe(self, service: str) -> dict[str, EndpointState]:
        """Return instance id → state, read from the router itself, not from memory."""

    async def observe_all(self) -> dict[str, dict[str, EndpointState]]:
        """Return service → what `observe` returns, of every service that the router knows, from one query."""
