"""What the gateway's file is made from: the operator's settings, and each service with its admitted instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.routing.port import Endpoint, RoutedService

INSIDE = "/run/gateway"
"""Where the gateway's container sees the directory of its files."""
KEEP_ALIVE = 12
"""Seconds that a client's idle connection is kept; on a worker that was replaced, one more request may come so late."""
MAX_QUEUED_PER_SERVICE = 500
HOLD_SERVER = "hold"
"""The backup server that every backend has. No instance can have this name."""


@dataclass(frozen=True)
class GatewaySettings:
    """What the operator says of the gateway. Sizes in bytes; trusted proxies are addresses or networks. `subnet` is that of
    the instances' network: only its addresses may use the ports on the bridge."""

    bridge_address: str
    subnet: str
    public_port: int = 8080
    maxconn: int = 8000
    max_body: int = 100 * 1024**2
    trusted_proxies: tuple[str, ...] = ()
    log_all: bool = False


@dataclass(frozen=True)
class DesiredBackend:
    """A service as it is to be, with its admitted instances by id."""

    service: RoutedService
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.service.name

    def with_endpoint(self, endpoint: Endpoint) -> DesiredBackend:
        return DesiredBackend(self.service, {**self.endpoints, endpoint.id: endpoint})

    def without(self, instance: str) -> DesiredBackend:
        return DesiredBackend(self.service, {id: endpoint for id, endpoint in self.endpoints.items() if id != instance})


def backend_of(service: str) -> str:
    """The live one of a service's two backends: where its instances are."""
    return f"{service}.a"
