"""Other people's Eureka servers as directories: nothing of theirs is changed but the leases of our own instances.

A leaving instance is OUT_OF_SERVICE there, its consumers' staleness is waited out, since they cannot be asked, and when it
has gone its lease is deleted until it stays deleted: the stock server is its own peer, and brings it back
(spring-measured.md, traps). The stock server's list is up to 30 s old, so what must be known now is asked of each lease,
which it answers from its registry. An instance registers under its own id, which Sluice tells it
(`EUREKA_INSTANCE_INSTANCE_ID`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import structlog

from services.bounded_http import Answer, AnswerRefusedError, BoundedClient
from services.clock import Clock
from services.outbound import OutboundPolicy, OutboundRefusedError
from services.routing.port import Endpoint, RoutedService, RoutingError
from services.spec import Eureka

log = structlog.get_logger(__name__)
TIMEOUT = 5.0
MAX_BODY = 4 * 1024 * 1024
"""Bytes of an answer: a list of some two thousand instances."""
MAX_WORD = 512
"""Characters of a name or status in an answer."""
GONE_FOR = 120.0
"""Seconds in which a deleted lease must not come back: longer than a server keeps a heartbeat that it has yet to replay."""
ASK_EVERY = 5.0
"""Seconds between two looks at what need not be known at once."""
Lease = tuple[str, str]
"""Application and instance, as the server names them."""


@dataclass
class Tombstone:
    """When its lease is looked for next, and until when."""

    server: Eureka
    next: float
    until: float


@dataclass
class RegistrationCheck:
    """Whether any instance of a service was registered when that was asked."""

    asked_at: float
    registered: bool


@dataclass
class ExternalEureka:
    clock: Clock
    client: BoundedClient | None = None
    """Made when somebody's server is asked first: most have none, and it reads all certificates."""
    outbound: OutboundPolicy = field(default_factory=OutboundPolicy)
    """The servers that may be called: a stored spec may be older than the operator's list."""
    _hidden_at: dict[str, float] = field(default_factory=dict)
    _tombstones: dict[str, Tombstone] = field(default_factory=dict)
    _registration_checks: dict[str, RegistrationCheck] = field(default_factory=dict)
    _apps: dict[str, str] = field(default_factory=dict)
    """By service, the application that its instances register as, where one has been seen."""

    async def restore(self, services: list[RoutedService], endpoints: list[Endpoint]) -> dict[str, str]:
        serving = {endpoint.id for endpoint in endpoints}
        leaving = {}
        for service in services:
            try:
                ours = [id for id in await self._leases(service.eureka) if _is_of(id, service.name) and id not in serving]
                leases = {id: await self._lease(service.eureka, id) for id in ours}
            except RoutingError as error:
                log.warning("eureka_server", service=service.name, error=str(error))
                continue
            for instance, lease in leases.items():
                if lease is not None and lease[1] == "OUT_OF_SERVICE":
                    leaving[instance] = service.name
                    self._hidden_at[instance] = self.clock.now()
        return leaving

    async def publish(self, service: RoutedService) -> None:
        """Their server knows instances alone."""

    async def unpublish(self, service: str) -> None:
        """Nor does it know that a service is gone."""
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
            self._tombstones[instance] = Tombstone(service.eureka, now, now + GONE_FOR)
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
        closes = self._hidden_at.get(instance, 0) + server.consumer_staleness
        where = urlsplit(server.url).hostname
        told = f"its consumers may be {server.consumer_staleness:g} s behind (shorten it with eureka.consumer_staleness)"
        return closes, f"waiting for the Eureka server at {where}: {told}"

    async def sweep(self) -> None:
        """Delete leases of what has gone, for as long as they may come back. Call it about once a second."""
        silent: set[str] = set()
        for instance, grave in list(self._tombstones.items()):
            now = self.clock.now()
            if now < grave.next or grave.server.url in silent:
                continue
            grave.next = now + ASK_EVERY
            try:
                lease = await self._ask_lease(grave.server, instance)
                if lease is not None:
                    await self._ask("DELETE", grave.server, _path((lease[0], instance)))
            except RoutingError as error:
                silent.add(grave.server.url)
                log.warning("eureka_server", instance=instance, error=str(error))
            if now > grave.until:
                self._tombstones.pop(instance, None)

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()

    async def _set(self, service: RoutedService, instance: str, status: str) -> None:
        """Set its status there and read it back. One that is not registered is known to nobody."""
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
        """Whether any instance of this service is registered, as of `ASK_EVERY` ago or later."""
        now = self.clock.now()
        known = self._registration_checks.get(service.name)
        if known is None or now >= known.asked_at + ASK_EVERY:
            leases = await self._leases(service.eureka, self._apps.get(service.name))
            apps = [app for id, (app, _) in leases.items() if _is_of(id, service.name)]
            known = self._registration_checks[service.name] = RegistrationCheck(now, bool(apps))
            if apps:
                self._apps[service.name] = apps[0]
        return known.registered

    async def _leases(self, server: Eureka | None, app: str | None = None) -> dict[str, Lease]:
        """Instance → its application and status, of all that is registered there (or of one application, when there is
        such a one), as consumers are told."""
        if server is None:
            return {}
        answer = await self._ask("GET", server, f"apps/{quote(app, safe='')}") if app is not None else None
        try:
            if answer is not None and answer.status != 404:
                applications: list[dict[str, Any]] = [answer.json()["application"]]
            else:
                applications = (await self._ask("GET", server, "apps/")).json()["applications"]["application"]
            return {
                _word(one.get("instanceId") or one["hostName"]): (_word(app["name"]), _word(one["status"]))
                for app in applications
                for one in app["instance"]
            }
        except (AnswerRefusedError, LookupError, TypeError, AttributeError) as error:
            raise _no_eureka(server) from error

    async def _lease(self, server: Eureka | None, instance: str) -> Lease | None:
        """As it is now. None: it is not registered, and whoever says so is a Eureka server."""
        lease = await self._ask_lease(server, instance)
        if lease is None:
            await self._leases(server)
        return lease

    async def _ask_lease(self, server: Eureka | None, instance: str) -> Lease | None:
        """As it is now. None: whoever answers knows no such instance."""
        if server is None:
            return None
        answer = await self._ask("GET", server, f"instances/{quote(instance, safe=':')}")
        if answer.status == 404:
            return None
        try:
            found = answer.json()["instance"]
            return _word(found["app"]), _word(found["status"])
        except (AnswerRefusedError, LookupError, TypeError, AttributeError) as error:
            raise _no_eureka(server) from error

    async def _ask(self, method: str, server: Eureka, path: str) -> Answer:
        where, url = urlsplit(server.url).hostname, f"{server.url.rstrip('/')}/{path}"
        if self.client is None:
            self.client = BoundedClient(MAX_BODY, tls=httpx.create_ssl_context(trust_env=False), outbound=self.outbound)
        try:
            answer = await self.client.ask(method, url, {"Accept": "application/json"}, timeout=TIMEOUT)
        except OutboundRefusedError as error:
            raise RoutingError(f"the Eureka server at {where} is not called: its URL {error}") from error
        except TimeoutError as error:
            raise RoutingError(f"the Eureka server at {where} did not answer within {TIMEOUT:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RoutingError(f"the Eureka server at {where} does not answer: {error or type(error).__name__}") from error
        except AnswerRefusedError as error:
            raise RoutingError(f"the Eureka server at {where} is not understood: {error}") from error
        missing = answer.status == 404 and (method == "DELETE" or (method == "GET" and path != "apps/"))
        if answer.status >= 300 and not missing:
            raise RoutingError(f"the Eureka server at {where} answers {answer.status} to {method} {path}")
        return answer


def _no_eureka(server: Eureka) -> RoutingError:
    return RoutingError(f"the server at {urlsplit(server.url).hostname} does not answer as a Eureka server")


def _word(value: Any) -> str:
    """A name or status as a Eureka server gives it. Raises TypeError for anything but a short text."""
    if not isinstance(value, str) or len(value) > MAX_WORD:
        raise TypeError
    return value


def _path(lease: Lease) -> str:
    return f"apps/{quote(lease[0], safe='')}/{quote(lease[1], safe=':')}"


def _is_of(instance: str, service: str) -> bool:
    """Our own ids name their service: `web-r4-1`."""
    return instance.rpartition("-r")[0] == service
