"""State of HAProxy's workers and their servers, read in one pass for all callers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from services.concurrency import ReadWriteLock
from services.gateway.config.model import KEEP_ALIVE_TIMEOUT
from services.gateway.config.names import QUEUE_SERVER, live_backend, service_of
from services.gateway.runtime.failed_checks import CHECK_PASSED, FailedCheck, FailedChecks, parse_failed_checks
from services.gateway.runtime.runtime_api import OldMasterGone, RuntimeApi
from services.gateway.runtime.takeover import OldGateway, OldGatewaySockets
from services.routing.port import Endpoint, EndpointState, EndpointStateName, RoutingError

MAX_SEPARATE_QUERIES = 4
"""Maximum number of services that are queried one by one.

For more services, one answer with all of them is cheaper.
"""
REPLACED_WORKER_GRACE = 2.0
"""Seconds beyond KEEP_ALIVE_TIMEOUT until a replaced worker is trusted to start no new request.

HAProxy reports a worker's age in whole seconds.
"""
_MAINT, _DRAIN = 0x01 | 0x02 | 0x04 | 0x20, 0x08 | 0x10
_PROC = re.compile(r"(\d+)\s+(master|worker)\s+(\d+)\s.*?(\d+)d(\d+)h(\d+)m(\d+)s\s+(\S+)")


@dataclass(frozen=True)
class Worker:
    """A worker of HAProxy.

    `uptime` is in seconds. `replaced_for`: seconds since a newer worker took over; None for the current worker.
    """

    pid: int
    uptime: float
    replaced_for: float | None = None
    master: str = ""
    """Name of its master's socket, if that is not the current master."""

    @property
    def address(self) -> str:
        return f"{self.master}@!{self.pid}"


@dataclass(frozen=True)
class BackendServer:
    """A server of a live backend, as one worker lists it: an instance."""

    address: str
    port: int
    admin: int
    up: bool
    in_flight: int = 0
    passed: bool = False
    """Whether the last check passed. A new worker takes every server as up until the server's first check."""

    @property
    def failed(self) -> bool:
        """Whether the server should get requests, and gets none because of its checks."""
        return self.state == "admitted" and not self.up

    @property
    def state(self) -> EndpointStateName:
        if self.admin & _MAINT:
            return "closed"
        return "draining" if self.admin & _DRAIN else "admitted"

    def has_address_of(self, endpoint: Endpoint) -> bool:
        """Return whether the worker sends requests for this server to the endpoint's address and port."""
        return (self.address, self.port) == (endpoint.address, endpoint.port)


@dataclass(frozen=True)
class WorkerServers:
    """A worker with its servers: service → instance → server."""

    worker: Worker
    servers: Mapping[str, Mapping[str, BackendServer]] = field(default_factory=dict)


class Workers:
    """Reader of all workers.

    Callers that arrive during a pass share the next one: each gets a state read after its call.
    """

    def __init__(self, api: RuntimeApi, lock: ReadWriteLock, old_sockets: OldGatewaySockets) -> None:
        """Create a reader that does not read while a reload holds `lock` exclusively.

        On a reload the master forgets the commands that it accepted just before.
        """
        self._api = api
        self._old_sockets = old_sockets
        self._lock = lock
        self._failed_checks = FailedChecks()
        self._requested: set[str | None] = set()
        """Services that the next pass must read; None: all."""
        self._next: asyncio.Task[list[WorkerServers]] | None = None
        self._running: asyncio.Task[list[WorkerServers]] | None = None

    async def all(self) -> list[Worker]:
        """Return the workers, including those of old gateways; the current worker is first."""
        workers = parse_proc(await self._api.query("show proc", ""))
        for old in self._old_sockets.old_gateways():
            with suppress(OldMasterGone):
                workers += workers_of(old, await self._api.query("show proc", old.socket))
        return workers

    async def endpoint_states(self, service: str) -> dict[str, EndpointState]:
        """Return the states of a service's endpoints. Raises RoutingError as `read_servers` does."""
        states = parse_endpoint_states(service, await self.read_servers(service))
        return self._failed_checks.add_to(states)

    async def all_endpoint_states(self) -> dict[str, dict[str, EndpointState]]:
        """Return the states of all services' endpoints, from one answer of each worker."""
        listings = await self.read_servers()
        services = {service for listing in listings for service in listing.servers}
        return {service: self._failed_checks.add_to(parse_endpoint_states(service, listings)) for service in services}

    async def read_servers(self, service: str | None = None) -> list[WorkerServers]:
        """Return every worker's servers, of one or all services, the present worker's first.

        The caller must not hold `lock`, because the pass acquires it. Raises RoutingError.
        """
        self._requested.add(service)
        if self._next is None:
            self._next = asyncio.create_task(self._pass(self._running))
        return await asyncio.shield(self._next)

    def forget_checks(self, instance: str) -> None:
        """Forget the failed check of an instance that is removed."""
        self._failed_checks.forget(instance)

    async def close(self) -> None:
        for task in (self._running, self._next):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _pass(self, before: asyncio.Task[list[WorkerServers]] | None) -> list[WorkerServers]:
        if before is not None:
            await asyncio.wait([before])
        services, self._requested = self._requested, set()
        self._running, self._next = self._next, None
        async with self._lock.shared():
            workers = await self.all()
            present, *replaced = await asyncio.gather(*(self._read(worker, services) for worker in workers))
            if present is not None:
                await self._read_failed_checks(present)
        return [listing for listing in (present, *replaced) if listing is not None]

    async def _read_failed_checks(self, present: WorkerServers) -> None:
        """Read why servers of the present worker are down; only backends with such a server are asked."""
        failed = [service for service, servers in present.servers.items() if any(each.failed for each in servers.values())]
        checks: dict[str, FailedCheck] = {}
        if failed:
            tables = [live_backend(name) for name in failed] if len(failed) <= MAX_SEPARATE_QUERIES else ["-1"]
            commands = [f"@!{present.worker.pid} show stat {table} 4 -1" for table in tables]
            checks = parse_failed_checks(await self._api.query("; ".join(commands), present.worker.master))
        servers = {name: server for each in present.servers.values() for name, server in each.items()}
        self._failed_checks.update(
            failed={name: checks.get(name, FailedCheck("down")) for name, server in servers.items() if server.failed},
            passed={name for name, server in servers.items() if server.passed or server.state != "admitted"},
        )

    async def _read(self, worker: Worker, services: set[str | None]) -> WorkerServers | None:
        """Return the worker's servers; None if a replaced worker has ended."""
        names = sorted(name for name in services if name is not None)
        separate = None not in services and len(names) <= MAX_SEPARATE_QUERIES
        backends = [f" {live_backend(name)}" for name in names] if separate else [""]
        commands = [f"@!{worker.pid} show servers {table}{backend}" for backend in backends for table in ("state", "conn")]
        try:
            answer = await self._api.query("; ".join(commands), worker.master)
        except OldMasterGone:
            return None
        if "# be_id" not in answer and "backend" not in answer:
            if worker.replaced_for is None:
                raise RoutingError("The gateway's servers cannot be read: its worker ended during the query")
            return None
        return WorkerServers(worker, parse_servers(answer))


def parse_proc(answer: str) -> list[Worker]:
    """Parse `show proc`. Raises RoutingError if there is no worker."""
    uptimes = _uptimes(answer)
    if not uptimes:
        raise RoutingError("The gateway has no worker: HAProxy's master lists none")
    return [
        Worker(pid, uptime, replaced_for=uptimes[position - 1][1] if position else None)
        for position, (pid, uptime) in enumerate(uptimes)
    ]


def workers_of(old: OldGateway, answer: str) -> list[Worker]:
    """Parse `show proc` of an old gateway.

    None of its workers is the current one. Until the old gateway is asked to drain, they may still take requests.
    """
    uptimes, draining_for = _uptimes(answer), old.draining_for or 0.0
    return [
        Worker(pid, uptime, max(draining_for, uptimes[position - 1][1] if position else 0.0), old.socket)
        for position, (pid, uptime) in enumerate(uptimes)
    ]


def parse_servers(answer: str) -> dict[str, dict[str, BackendServer]]:
    """Parse `show servers state` and `show servers conn`, in this order, for any backends."""
    states: dict[tuple[str, str], list[str]] = {}
    in_flight: dict[tuple[str, str], int] = {}
    for line in answer.splitlines():
        words = line.split()
        if len(words) >= 20 and words[0].isdigit():
            states[words[1], words[3]] = words
        elif len(words) >= 8 and "/" in words[0] and "/" in words[1] and not line.startswith("#"):
            backend, _, name = words[0].partition("/")
            in_flight[backend, name] = int(words[6])
    services: dict[str, dict[str, BackendServer]] = {}
    for (backend, name), words in states.items():
        service = service_of(backend)
        if service is None or name == QUEUE_SERVER:
            continue
        services.setdefault(service, {})[name] = BackendServer(
            address=words[4],
            port=int(words[18]),
            admin=int(words[6]),
            up=words[5] != "0",
            in_flight=in_flight.get((backend, name), 0),
            passed=words[11] in CHECK_PASSED,
        )
    return services


def parse_endpoint_states(service: str, listings: Iterable[WorkerServers]) -> dict[str, EndpointState]:
    """Combine the state of a service's endpoints over all workers.

    Requests in flight are summed. An endpoint is not drained while a replaced worker could still start a request to it.
    """
    present, *replaced = listings
    endpoint_states: dict[str, EndpointState] = {}
    ids = {instance for listing in (present, *replaced) for instance in listing.servers.get(service, {})}
    for instance in ids:
        current = present.servers.get(service, {}).get(instance)
        others = [(old.worker, server) for old in replaced if (server := old.servers.get(service, {}).get(instance))]
        in_flight = (current.in_flight if current else 0) + sum(server.in_flight for _, server in others)
        state: EndpointStateName = current.state if current else "draining"
        quiet = all(server.state != "admitted" or _starts_no_request(worker) for worker, server in others)
        drained = state != "admitted" and in_flight == 0 and quiet
        up, passed = (current.up, current.passed) if current else (True, False)
        endpoint_states[instance] = EndpointState(state, in_flight, drained, healthy=up, checked=passed or not up)
    return endpoint_states


def _starts_no_request(worker: Worker) -> bool:
    """Return whether the connections that a replaced worker kept open for more requests have ended."""
    return (worker.replaced_for or 0) > KEEP_ALIVE_TIMEOUT + REPLACED_WORKER_GRACE


def _uptimes(answer: str) -> list[tuple[int, float]]:
    """Return the workers by pid and uptime, the youngest first."""
    rows = _PROC.findall(answer)
    workers = [(int(reloads), int(pid), _seconds(*age)) for pid, kind, reloads, *age, _ in rows if kind == "worker"]
    return [(pid, uptime) for _, pid, uptime in sorted(workers)]


def _seconds(days: str, hours: str, minutes: str, seconds: str) -> float:
    return int(days) * 86400 + int(hours) * 3600 + int(minutes) * 60 + int(seconds)
