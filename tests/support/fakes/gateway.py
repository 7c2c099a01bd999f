"""In-memory fake of the Router port: workers with own server lists, and faults that hide a drain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from services.clock import Clock
from services.routing.port import Endpoint, EndpointState, EndpointStateName, RoutedService, RoutingError

Call = Literal[
    "restore", "publish", "unpublish", "admit", "withdraw", "mark_dead", "force_close", "remove", "observe", "observe_all"
]
KEEP_ALIVE = 12.0
"""Seconds in which a client of a replaced worker may begin a request, served from that worker's list."""


@dataclass
class FakeServer:
    """An instance in one worker's list."""

    endpoint: Endpoint
    state: EndpointStateName = "admitted"
    in_flight: int = 0
    healthy: bool = True
    check: str = ""


@dataclass
class Worker:
    """One worker. `replaced_at`: when a newer one took over; then it accepts no commands for servers."""

    number: int
    servers: dict[str, FakeServer] = field(default_factory=dict)
    replaced_at: float | None = None
    idle_clients: bool = False
    """Clients keep it alive with idle connections, and may begin one more request each within KEEP_ALIVE."""


class FakeGateway:
    """Fake of services.routing.port.Router.

    Controls: `fail_next`, `silent`, `unfit`, `before`, `busy`, `make_unhealthy`, `reload`, `restart`. The calls
    received are in `calls`, the state in `workers` (the current one first), `services` and `cuts`.
    """

    def __init__(self, clock: Clock, *, name: str = "gateway") -> None:
        self.clock = clock
        self.workers = [Worker(0)]
        self.services: dict[str, RoutedService] = {}
        self.calls: list[tuple[str, str]] = []
        """(method, instance or service) of each call, in order."""
        self.cuts: list[tuple[str, int]] = []
        """(instance, number of requests that were cut) of each force-close."""
        self.silent = False
        """The gateway does not answer: every call raises without effect."""
        self.unreachable: set[str] = set()
        """Instances without a network: their requests in flight do not end when they are marked dead."""
        self.unfit: dict[str, RoutedService] = {}
        """Service → what it stays at `restore`, because its new configuration conflicts with the others."""
        self.before: Callable[[str, str], Awaitable[None]] | None = None
        """Awaited with (method, instance or service) before a call acts, for events in between."""
        self._name = name
        self._numbers = count(1)
        self._failures: dict[str, list[tuple[str, bool]]] = defaultdict(list)
        self._lost: set[tuple[str, str]] = set()

    @property
    def name(self) -> str:
        return self._name

    @property
    def present(self) -> Worker:
        return self.workers[0]

    # Controls

    def fail_next(self, call: Call, message: str = "refused", *, times: int = 1, done: bool = False) -> None:
        """Make the next `times` calls raise; with `done` the work is done and only its answer is lost."""
        self._failures[call] += [(message, done)] * times

    def busy(self, instance: str, in_flight: int, *, worker: int = 0) -> None:
        """Set the requests in flight at the instance, begun by the worker at this position."""
        self.workers[worker].servers[instance].in_flight = in_flight
        self._bury()

    def make_unhealthy(self, instance: str, *, healthy: bool = False, check: str = "L7STS 503") -> None:
        """Set the result of the present worker's own health checks."""
        server = self.present.servers[instance]
        server.healthy, server.check = healthy, "" if healthy else check

    def reload(self, *, idle_clients: bool = False) -> None:
        """Start a new worker with the admitted instances.

        The old worker keeps its list and its requests, and accepts no more commands.
        """
        old = self.present
        old.replaced_at, old.idle_clients = self.clock.now(), idle_clients
        admitted = {
            id: FakeServer(server.endpoint, healthy=server.healthy, check=server.check)
            for id, server in old.servers.items()
            if server.state == "admitted"
        }
        self.workers.insert(0, Worker(next(self._numbers), admitted))
        self._bury()

    def restart(self) -> None:
        """Restart its container without Sluice: requests are lost, and the instances in its file are admitted."""
        self.reload()
        del self.workers[1:]

    # The port

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, RoutedService | None]:
        with await self._called("restore", ""):
            self.services = {service.name: self.unfit.get(service.name, service) for service in services}
            wanted = {endpoint.id: endpoint for endpoint in endpoints if (endpoint.id, endpoint.start_id) not in self._lost}
            for endpoint in wanted.values():
                self._enter(endpoint)
            for id, server in self.present.servers.items():
                if id not in wanted and server.state == "admitted":
                    server.state = "draining"
        return dict(self.unfit)

    async def publish(self, service: RoutedService) -> None:
        with await self._called("publish", service.name):
            routes = {route.key: other.name for other in self.services.values() for route in other.routes}
            clash = [route.key for route in service.routes if routes.get(route.key, service.name) != service.name]
            if clash:
                raise RoutingError(f"{service.name} and {routes[clash[0]]} both use the route {''.join(clash[0])}")
            self.services[service.name] = service

    async def unpublish(self, service: str) -> None:
        with await self._called("unpublish", service):
            self.services.pop(service, None)
            for id in self._of(self.present, service):
                del self.present.servers[id]

    async def admit(self, endpoint: Endpoint) -> None:
        with await self._called("admit", endpoint.id):
            if endpoint.service not in self.services:
                raise RoutingError(f"{endpoint.id} cannot be admitted: the gateway has no service {endpoint.service}")
            if (endpoint.id, endpoint.start_id) in self._lost:
                raise RoutingError(f"{endpoint.id} cannot be admitted: it died after it had started")
            self._enter(endpoint)

    async def withdraw(self, service: str, instance: str) -> None:
        with await self._called("withdraw", instance):
            server = self._find(service, instance)
            if server is not None and server.state == "admitted":
                server.state = "draining"

    async def mark_dead(self, service: str, instance: str, start_id: str) -> None:
        self._lost.add((instance, start_id))
        with await self._called("mark_dead", instance):
            server = self._find(service, instance)
            if server is not None and (server.endpoint.start_id == start_id or server.state != "admitted"):
                server.state = "closed"
                for worker in self.workers:
                    if instance in worker.servers and instance not in self.unreachable:
                        worker.servers[instance].in_flight = 0
                self._bury()

    async def force_close(self, service: str, instance: str) -> int:
        with await self._called("force_close", instance):
            cut = 0
            for worker in self.workers:
                server = worker.servers.get(instance)
                if server is not None and server.endpoint.service == service:
                    cut, server.in_flight = cut + server.in_flight, 0
            server = self._find(service, instance)
            if server is not None:
                server.state = "closed"
            self.cuts.append((instance, cut))
            self._bury()
            return cut

    async def remove(self, service: str, instance: str) -> None:
        with await self._called("remove", instance):
            if self._find(service, instance) is not None:
                del self.present.servers[instance]
            for worker in self.workers[1:]:
                worker.servers.pop(instance, None)
            self._lost = {(id, start_id) for id, start_id in self._lost if id != instance}

    async def observe(self, service: str) -> dict[str, EndpointState]:
        with await self._called("observe", service):
            self._bury()
            return {id: self._endpoint_state(id) for worker in self.workers for id in self._of(worker, service)}

    async def observe_all(self) -> dict[str, dict[str, EndpointState]]:
        with await self._called("observe_all", ""):
            self._bury()
            services = {server.endpoint.service for worker in self.workers for server in worker.servers.values()}
            return {
                service: {id: self._endpoint_state(id) for worker in self.workers for id in self._of(worker, service)}
                for service in services
            }

    def _endpoint_state(self, instance: str) -> EndpointState:
        here = self.present.servers.get(instance)
        there = [(worker, worker.servers[instance]) for worker in self.workers[1:] if instance in worker.servers]
        in_flight = (here.in_flight if here else 0) + sum(server.in_flight for _, server in there)
        quiet = all(server.state != "admitted" or self._over(worker) for worker, server in there)
        state: EndpointStateName = here.state if here else "draining"
        drained = state != "admitted" and in_flight == 0 and quiet
        check = here.check if here is not None and state == "admitted" else ""
        return EndpointState(state, in_flight, drained, here.healthy if here else True, check=check)

    def _enter(self, endpoint: Endpoint) -> None:
        present = self.present.servers.get(endpoint.id)
        if present is None or present.endpoint.address != endpoint.address:
            self.present.servers[endpoint.id] = FakeServer(endpoint)
        else:
            present.endpoint = endpoint
            if present.state != "admitted":
                present.state, present.healthy, present.check = "admitted", True, ""

    def _over(self, worker: Worker) -> bool:
        return worker.replaced_at is not None and self.clock.now() > worker.replaced_at + KEEP_ALIVE

    def _bury(self) -> None:
        """Remove replaced workers without requests and idle clients."""
        self.workers[1:] = [
            worker
            for worker in self.workers[1:]
            if any(server.in_flight for server in worker.servers.values())
            or (worker.idle_clients and not self._over(worker))
        ]

    def _find(self, service: str, instance: str) -> FakeServer | None:
        server = self.present.servers.get(instance)
        return server if server is not None and server.endpoint.service == service else None

    def _of(self, worker: Worker, service: str) -> list[str]:
        return [id for id, server in worker.servers.items() if server.endpoint.service == service]

    async def _called(self, call: Call, what: str) -> AbstractContextManager[None]:
        self.calls.append((call, what))
        if self.before is not None:
            await self.before(call, what)
        if self.silent:
            raise RoutingError("The gateway does not answer")
        message, done = self._failures[call].pop(0) if self._failures[call] else (None, False)
        if message is not None and not done:
            raise RoutingError(message)
        return _answer_lost(message)


@contextmanager
def _answer_lost(message: str | None) -> Iterator[None]:
    """Let the work within be done; then raise if there is a message, so that its answer is lost."""
    yield
    if message is not None:
        raise RoutingError(message)
