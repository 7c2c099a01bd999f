"""External Eureka servers as directories: Sluice changes only the leases of its own instances there.

A draining instance is set to OUT_OF_SERVICE there. Its consumers cannot be observed, so Sluice waits for their
configured staleness. After the instance's removal its lease is deleted until it stays deleted: the stock server is
its own peer and restores it. The stock server's list is up to 30 s old, so Sluice queries the individual lease, which
the server answers from its registry, if a fact must be current. An instance registers under its own id, which Sluice
passes to it (`EUREKA_INSTANCE_INSTANCE_ID`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import structlog

from services.bounded_http import AnswerRefusedError, BoundedClient, BoundedResponse
from services.clock import Clock
from services.outbound import OutboundPolicy, OutboundRefusedError
from services.routing.port import Endpoint, RoutedService, RoutingError
from services.spec import Eureka

log = structlog.get_logger(__name__)
REQUEST_TIMEOUT = 5.0
MAX_BODY = 4 * 1024 * 1024
"""Maximum bytes of an answer: a list of about two thousand instances."""
MAX_NAME_LENGTH = 512
"""Maximum characters of a name or status in an answer."""
TOMBSTONE_SECONDS = 120.0
"""Seconds for which a deleted lease must not come back.

That is longer than a server keeps a heartbeat that it has yet to replay.
"""
CHECK_INTERVAL = 5.0
"""Seconds between two checks of facts that need not be current."""
Lease = tuple[str, str]
"""Application and status of an instance, as the server names them."""


@dataclass
class Tombstone:
    """A deleted lease: `next_check` is the time of the next check, `until` the end of the checks."""

    server: Eureka
    next_check: float
    until: float


@dataclass
class RegistrationCheck:
    """Result of a check at `checked_at`: whether any instance of a service was registered."""

    checked_at: float
    registered: bool


@dataclass
class ExternalEureka:
    clock: Clock
    client: BoundedClient | None = None
    """HTTP client, created on first use.

    Most installations have no external server, and the client's creation reads all certificates.
    """
    outbound: OutboundPolicy = field(default_factory=OutboundPolicy)
    """The servers that may be called. A stored spec may be older than the operator's list."""
    _hidden_at: dict[str, float] = field(default_factory=dict)
    _tombstones: dict[str, Tombstone] = field(default_factory=dict)
    _registration_checks: dict[str, RegistrationCheck] = field(default_factory=dict)
    _apps: dict[str, str] = field(default_factory=dict)
    """Service → the application under which its instances register, if one has been seen."""

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, str]:
        serving = {endpoint.id for endpoint in endpoints}
        draining = {}
        for service in services:
            try:
                instances = [
                    id for id in await self._leases(service.eureka) if _is_of(id, service.name) and id not in serving
                ]
                leases = {id: await self._lease(service.eureka, id) for id in instances}
            except RoutingError as error:
                log.warning("eureka_server", service=service.name, error=str(error))
                continue
            for instance, lease in leases.items():
                if lease is not None and lease[1] == "OUT_OF_SERVICE":
                    draining[instance] = service.name
                    self._hidden_at[instance] = self.clock.now()
        return draining

    async def publish(self, service: RoutedService) -> None:
        """Do nothing: an external server knows instances only."""

    async def unpublish(self, service: str) -> None:
        """Forget the service. The server itself needs no change, because it knows instances only."""
        self._apps.pop(service, None)
        self._registration_checks.pop(service, None)

    async def publish_instance(self, service: RoutedService, endpoint: Endpoint) -> None:
        self._tombstones.pop(endpoint.id, None)
        if self._hidden_at.pop(endpoint.id, None) is not None:
            await self._set(service, endpoint.id, "UP")

    async def take_out_of_service(self, service: RoutedService, instance: str) -> None:
        await self._set(service, instance, "OUT_OF_SERVICE")
        self._hidden_at.setdefault(instance, self.clock.now())

    async def remove(self, service: RoutedService, instance: str, *, for_good: bool) -> None:
        self._hidden_at.pop(instance, None)
        if service.eureka is not None:
            now = self.clock.now()
            self._tombstones[instance] = Tombstone(service.eureka, now, now + TOMBSTONE_SECONDS)
            await self.sweep()

    async def is_registered(self, service: RoutedService, instance: str) -> bool:
        try:
            lease = await self._ask_lease(service.eureka, instance)
            if lease is not None:
                self._apps[service.name] = lease[0]
                return lease[1] == "UP"
            return not await self._registers(service)
        except RoutingError:
            return False

    def drain_not_before(self, service: RoutedService, instance: str) -> tuple[float, str]:
        server = service.eureka
        if server is None:
            return 0, ""
        not_before = self._hidden_at.get(instance, 0) + server.consumer_staleness
        host = urlsplit(server.url).hostname
        cause = f"its consumers may be {server.consumer_staleness:g} s behind (shorten it with eureka.consumer_staleness)"
        return not_before, f"waiting for the Eureka server at {host}: {cause}"

    async def sweep(self) -> None:
        """Delete the leases of removed instances for as long as they may come back. Call about once a second."""
        unreachable: set[str] = set()
        for instance, tombstone in list(self._tombstones.items()):
            now = self.clock.now()
            if now < tombstone.next_check or tombstone.server.url in unreachable:
                continue
            tombstone.next_check = now + CHECK_INTERVAL
            try:
                lease = await self._ask_lease(tombstone.server, instance)
                if lease is not None:
                    await self._ask("DELETE", tombstone.server, _path((lease[0], instance)))
            except RoutingError as error:
                unreachable.add(tombstone.server.url)
                log.warning("eureka_server", instance=instance, error=str(error))
            if now > tombstone.until:
                self._tombstones.pop(instance, None)

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()

    async def _set(self, service: RoutedService, instance: str, status: str) -> None:
        """Set the status of an instance on the server and read it back.

        Does nothing if the instance is not registered, because no consumer knows it. Raises RoutingError if the
        status read differs.
        """
        server = service.eureka
        found = await self._lease(server, instance)
        if server is None or found is None:
            return
        path = f"{_path((found[0], instance))}/status?value={status}"
        await self._ask("DELETE" if status == "UP" else "PUT", server, path)
        after = await self._lease(server, instance)
        if after is not None and after[1] != status:
            raise RoutingError(
                f"the Eureka server at {urlsplit(server.url).hostname} shows {instance} as {after[1]}, not {status}"
            )

    async def _registers(self, service: RoutedService) -> bool:
        """Return True if any instance of this service was registered within the last `CHECK_INTERVAL` seconds."""
        now = self.clock.now()
        check = self._registration_checks.get(service.name)
        if check is None or now >= check.checked_at + CHECK_INTERVAL:
            leases = await self._leases(service.eureka, self._apps.get(service.name))
            apps = [app for id, (app, _) in leases.items() if _is_of(id, service.name)]
            check = self._registration_checks[service.name] = RegistrationCheck(now, bool(apps))
            if apps:
                self._apps[service.name] = apps[0]
        return check.registered

    async def _leases(self, server: Eureka | None, app: str | None = None) -> dict[str, Lease]:
        """Return the registered instances as consumers see them: instance → application and status.

        With `app`, only that application's instances, if the server knows the application.
        """
        if server is None:
            return {}
        answer = await self._ask("GET", server, f"apps/{quote(app, safe='')}") if app is not None else None
        try:
            if answer is not None and answer.status != 404:
                applications: list[dict[str, Any]] = [answer.json()["application"]]
            else:
                applications = (await self._ask("GET", server, "apps/")).json()["applications"]["application"]
            return {
                _name(instance.get("instanceId") or instance["hostName"]): (_name(app["name"]), _name(instance["status"]))
                for app in applications
                for instance in app["instance"]
            }
        except (AnswerRefusedError, LookupError, TypeError, AttributeError) as error:
            raise _no_eureka(server) from error

    async def _lease(self, server: Eureka | None, instance: str) -> Lease | None:
        """Return an instance's current lease, None if it has none.

        Raises RoutingError if the server is not a Eureka server.
        """
        lease = await self._ask_lease(server, instance)
        if lease is None:
            await self._leases(server)
        return lease

    async def _ask_lease(self, server: Eureka | None, instance: str) -> Lease | None:
        """Return an instance's current lease, None if the server answers 404.

        A server that is not a Eureka server may answer 404, too.
        """
        if server is None:
            return None
        answer = await self._ask("GET", server, f"instances/{quote(instance, safe=':')}")
        if answer.status == 404:
            return None
        try:
            found = answer.json()["instance"]
            return _name(found["app"]), _name(found["status"])
        except (AnswerRefusedError, LookupError, TypeError, AttributeError) as error:
            raise _no_eureka(server) from error

    async def _ask(self, method: str, server: Eureka, path: str) -> BoundedResponse:
        host, url = urlsplit(server.url).hostname, f"{server.url.rstrip('/')}/{path}"
        if self.client is None:
            self.client = BoundedClient(MAX_BODY, tls=httpx.create_ssl_context(trust_env=False), outbound=self.outbound)
        try:
            answer = await self.client.ask(method, url, {"Accept": "application/json"}, timeout=REQUEST_TIMEOUT)
        except OutboundRefusedError as error:
            raise RoutingError(f"the Eureka server at {host} is not called: its URL {error}") from error
        except TimeoutError as error:
            raise RoutingError(f"the Eureka server at {host} did not answer within {REQUEST_TIMEOUT:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RoutingError(f"the Eureka server at {host} does not answer: {error or type(error).__name__}") from error
        except AnswerRefusedError as error:
            raise RoutingError(f"invalid response from the Eureka server at {host}: {error}") from error
        missing = answer.status == 404 and (method == "DELETE" or (method == "GET" and path != "apps/"))
        if answer.status >= 300 and not missing:
            raise RoutingError(f"the Eureka server at {host} answers {answer.status} to {method} {path}")
        return answer


def _no_eureka(server: Eureka) -> RoutingError:
    return RoutingError(f"the server at {urlsplit(server.url).hostname} does not answer as a Eureka server")


def _name(value: Any) -> str:
    """Return a name or status of a Eureka server's answer. Raises TypeError for anything but a short text."""
    if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH:
        raise TypeError
    return value


def _path(lease: Lease) -> str:
    return f"apps/{quote(lease[0], safe='')}/{quote(lease[1], safe=':')}"


def _is_of(instance: str, service: str) -> bool:
    """Return True if an instance id such as `web-r4-1` belongs to the service."""
    return instance.rpartition("-r")[0] == service
