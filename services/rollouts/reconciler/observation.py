"""The observation of one service, the input of a reconciliation."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from services.engine.port import ContainerView, EngineError
from services.probes import Prober, ProbeSnapshot
from services.readiness import Readiness
from services.rollouts.reconciler.linking import LinkedServices
from services.rollouts.reconciler.ports import Ports
from services.rollouts.reconciler.service_state import ServiceState
from services.routing.port import EndpointState, RoutedService, RoutingError

T = TypeVar("T")
MAX_ATTEMPTS = 10
"""Observations until none of the service's operations ends during one."""


@dataclass(frozen=True)
class Observation:
    """The observed state of one service, and the controller's in-memory state of the service."""

    containers: Sequence[ContainerView]
    endpoint_states: Sequence[Mapping[str, EndpointState]]
    published: RoutedService | None
    subnet: str
    probes: ProbeSnapshot = field(default_factory=ProbeSnapshot)
    busy: frozenset[str] = frozenset()
    """Keys of the operations that were in progress when the observation began.

    The observation of their instances may be out of date. The end of each of these operations leads to another reconcile.
    """
    is_linked: bool = False
    """Whether another service names this service in its `links`."""
    watched_since: float = 0
    backoff_until: float = 0
    instance_error: str | None = None
    """The error of a router that has failed an instance's operation for too long (ROUTER_ERROR_TIMEOUT)."""
    publication_error: str | None = None
    """The error of a router that has failed to publish the service for too long (ROUTER_ERROR_TIMEOUT)."""
    unserved_links: Mapping[str, str | None] = field(default_factory=dict)
    """Services for which the routers do not answer by name yet → the error if it persists."""
    log_tails: Mapping[str, str | None] = field(default_factory=dict)
    """Instance id → the end of the instance's log, once a FetchLogTail operation has fetched it."""


class Observer:
    """The observer of services.

    `subnet` is the subnet of the instances, and `watched_since` the time when this process began to probe them.
    """

    def __init__(
        self,
        ports: Ports,
        prober: Prober,
        readiness: Readiness,
        links: LinkedServices,
        *,
        subnet: str,
        watched_since: float,
    ) -> None:
        self._ports = ports
        self._prober = prober
        self._readiness = readiness
        self._links = links
        self._subnet = subnet
        self._watched_since = watched_since

    async def observe(self, name: str, state: ServiceState) -> Observation:
        """Observe a service, up to ten times, until none of its operations ends during the observation.

        Raises EngineError or RoutingError, which is also reported as the readiness of the engine or the router.
        """
        for _ in range(MAX_ATTEMPTS):
            busy = frozenset(state.operations)
            containers = await self._report("engine", self._ports.engine.observe(name))
            endpoint_states = [await self._report(router.name, router.observe(name)) for router in self._ports.routers]
            if state.operations.keys() == busy:
                break
        now = self._ports.clock.now()
        return Observation(
            containers=containers,
            endpoint_states=endpoint_states,
            published=state.published,
            subnet=self._subnet,
            probes=self._prober.snapshot((view.instance, view.start_id) for view in containers),
            busy=busy,
            is_linked=name in self._links.linked,
            watched_since=self._watched_since,
            backoff_until=state.backoff_until(now),
            instance_error=state.router_errors.of_instances(now),
            publication_error=state.router_errors.of_publication(now),
            unserved_links=self._links.unserved(now),
            log_tails=state.log_tails,
        )

    async def _report(self, part: str, answer: Awaitable[T]) -> T:
        """Return the answer of the engine or a router, and report whether that part is ready."""
        try:
            result = await answer
        except (EngineError, RoutingError) as error:
            self._readiness.report(part, str(error))
            raise
        self._readiness.clear(part)
        return result
