"""Input of the gateway's configuration: the operator's settings, services and admitted endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.routing.port import Endpoint, RoutedService

RUN_DIRECTORY = "/run/gateway"
"""Path at which the gateway's container sees the directory of its files."""
KEEP_ALIVE_TIMEOUT = 12
"""Seconds that a client's idle connection is kept.

A replaced worker may get one more request per idle connection for this long.
"""
MAX_QUEUED_PER_SERVICE = 500
"""Maximum number of requests that wait for an instance of one service."""


@dataclass(frozen=True)
class GatewaySettings:
    """The operator's settings of the gateway.

    Sizes are in bytes. `trusted_proxies` are addresses or networks. `subnet` is the subnet of the instances' network:
    besides the host, only its addresses may use the ports on the bridge.
    """

    bridge_address: str
    subnet: str
    public_port: int = 8080
    maxconn: int = 8000
    max_body: int = 100 * 1024**2
    trusted_proxies: tuple[str, ...] = ()
    log_all: bool = False


@dataclass(frozen=True)
class DesiredBackend:
    """Desired state of a service in the gateway, with its admitted endpoints by instance id."""

    service: RoutedService
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.service.name

    def with_endpoint(self, endpoint: Endpoint) -> DesiredBackend:
        return DesiredBackend(self.service, {**self.endpoints, endpoint.id: endpoint})

    def without(self, instance: str) -> DesiredBackend:
        return DesiredBackend(self.service, {id: endpoint for id, endpoint in self.endpoints.items() if id != instance})
