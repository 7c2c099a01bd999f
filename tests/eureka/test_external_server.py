"""The drain of an instance that is registered at an external Eureka server.

The server is a second registry of Sluice's, which knows nothing of services.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.eureka.asgi import EurekaApp
from app.eureka.auth import EurekaAuth
from services.bounded_http import BoundedClient
from services.eureka.external_server import CHECK_INTERVAL, MAX_BODY, TOMBSTONE_SECONDS, ExternalEureka
from services.eureka.instance_info import LeaseStatus
from services.eureka.local_lease_directory import LocalLeaseDirectory
from services.eureka.registry import Registry
from services.eureka.repository import LeaseRepository
from services.eureka.router import RegistryRouter
from services.outbound import AllowedServer, OutboundPolicy
from services.routing.port import Endpoint, RoutedService, RoutingError
from services.spec import Eureka
from services.store.open import open_store
from tests.support.eureka_payloads import registration
from tests.support.fakes.clock import FakeClock
from tests.support.raw_http import server

pytestmark = pytest.mark.anyio
WEB = RoutedService("web", 8080, 18001, eureka=Eureka(url="http://theirs:8761/eureka/", consumer_staleness=40))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class ExternalServerHarness:
    """Sluice's router and the external Eureka server (`server`)."""

    def __init__(self, data: Path) -> None:
        self.clock = FakeClock()
        keeper = LeaseRepository(open_store(data))
        self.server = Registry(self.clock, keeper)
        self.answers: Callable[[httpx.Request], httpx.Response] | None = None
        self.router = self.start()

    def start(self) -> RegistryRouter:
        """Start Sluice's router, also again after a restart."""
        self.transport: httpx.AsyncBaseTransport = httpx.ASGITransport(EurekaApp(self.server, EurekaAuth(None)))
        self.theirs = ExternalEureka(self.clock, client(self.transport))
        return RegistryRouter(self.clock, LocalLeaseDirectory(self.server), self.theirs)

    def list_is(self, text: str) -> None:
        """Make the server list `text` from now on, regardless of its leases."""
        real = httpx.ASGITransport(EurekaApp(self.server, EurekaAuth(None)))

        class Behind(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                if request.url.path == "/eureka/apps/":
                    return httpx.Response(200, text=text)
                return await real.handle_async_request(request)

        self.theirs.client = client(Behind())

    def listen(self) -> list[str]:
        """Return a list of the paths that are requested from now on."""
        asked: list[str] = []
        real = self.transport

        class Noting(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                asked.append(request.url.path)
                return await real.handle_async_request(request)

        self.theirs.client = client(Noting())
        return asked

    async def listed(self) -> str:
        answer = await client(self.transport).ask(
            "GET", "http://theirs:8761/eureka/apps/", {"Accept": "application/json"}, timeout=5
        )
        return answer.body.decode()

    async def open(self, *serving: int) -> None:
        await self.router.restore([WEB], [member(n) for n in serving])

    async def register(self, n: int, **fields: str) -> None:
        await self.server.register(registration(f"web-r1-{n}", **fields), "127.0.0.1")

    def there(self) -> dict[str, LeaseStatus]:
        return {entry.registration.id: entry.status for entry in self.server.leases.applications.entries()}


def client(transport: httpx.AsyncBaseTransport) -> BoundedClient:
    return BoundedClient(MAX_BODY, transport=transport)


def member(n: int) -> Endpoint:
    return Endpoint(f"web-r1-{n}", "web", f"10.9.0.1{n}", 8080, f"start-{n}")


@pytest.fixture
def harness(tmp_path: Path) -> ExternalServerHarness:
    return ExternalServerHarness(tmp_path)


async def test_withdrawn_instance_is_out_of_service_and_drained_after_the_staleness(harness: ExternalServerHarness) -> None:
    await harness.open(1, 2)
    for n in (1, 2):
        await harness.register(n)
    await harness.router.withdraw("web", "web-r1-1")
    assert harness.there() == {"web-r1-1": LeaseStatus.OUT_OF_SERVICE, "web-r1-2": LeaseStatus.UP}
    endpoint_state = (await harness.router.observe("web"))["web-r1-1"]
    assert (endpoint_state.drained, endpoint_state.drain_not_before) == (False, harness.clock.now() + 40)
    assert endpoint_state.drain_blocker == (
        "waiting for the Eureka server at theirs: its consumers may be 40 s behind "
        "(shorten it with eureka.consumer_staleness)"
    )
    harness.clock.jump(40)
    assert (await harness.router.observe("web"))["web-r1-1"].drained


async def test_stale_application_list_of_the_server_is_not_trusted(harness: ExternalServerHarness) -> None:
    await harness.open(1, 2)
    for n in (1, 2):
        await harness.register(n)
    listed = await harness.listed()
    harness.list_is(listed)
    await harness.router.withdraw("web", "web-r1-1")
    assert harness.there()["web-r1-1"] is LeaseStatus.OUT_OF_SERVICE
    await harness.register(3)
    await harness.router.admit(member(3))
    assert "web-r1-3" in await harness.router.observe("web"), "it is UP, whatever the list says"
    harness.router = harness.start()
    harness.list_is(listed)
    await harness.open(2, 3)
    assert (await harness.router.observe("web"))["web-r1-1"].state == "draining"


async def test_server_that_is_no_eureka_raises_a_routing_error_on_404(harness: ExternalServerHarness) -> None:
    await harness.open(1)
    harness.theirs.client = client(httpx.MockTransport(lambda request: httpx.Response(404)))
    with pytest.raises(RoutingError, match="answers 404 to GET apps/"):
        await harness.router.withdraw("web", "web-r1-1")


async def test_admit_restores_the_status_at_the_server_at_once(harness: ExternalServerHarness) -> None:
    await harness.open(1)
    await harness.register(1)
    await harness.router.withdraw("web", "web-r1-1")
    await harness.router.admit(member(1))
    assert harness.there() == {"web-r1-1": LeaseStatus.UP}
    assert (await harness.router.observe("web"))["web-r1-1"].state == "admitted"


async def test_lease_of_a_removed_instance_is_deleted_again_if_it_reappears(harness: ExternalServerHarness) -> None:
    await harness.open(1)
    await harness.register(1)
    await harness.router.remove("web", "web-r1-1")
    assert harness.there() == {}
    await harness.register(1)  # A stock server's replication to itself can bring a lease back.
    harness.clock.jump(CHECK_INTERVAL)
    await harness.theirs.sweep()
    assert harness.there() == {}
    harness.clock.jump(TOMBSTONE_SECONDS + 1)
    await harness.theirs.sweep()
    await harness.register(1)
    await harness.theirs.sweep()
    assert harness.there() == {"web-r1-1": LeaseStatus.UP}, "another owner registered it"


async def test_new_instance_is_observed_once_it_is_up_at_the_server(harness: ExternalServerHarness) -> None:
    await harness.open(1)
    await harness.register(1)
    await harness.router.admit(member(2))
    assert "web-r1-2" not in await harness.router.observe("web")
    await harness.register(2)
    assert "web-r1-2" in await harness.router.observe("web")


async def test_server_is_asked_for_single_leases_and_rarely_for_lists(harness: ExternalServerHarness) -> None:
    await harness.open(1)
    await harness.register(1)
    await harness.router.remove("web", "web-r1-1")
    asked = harness.listen()
    for _ in range(11):
        await harness.theirs.sweep()
        harness.clock.jump(1)
    assert asked == ["/eureka/instances/web-r1-1"] * 2, "what has gone: every five seconds"
    await harness.register(2)
    await harness.router.admit(member(3))
    asked.clear()
    for _ in range(11):
        assert "web-r1-3" not in await harness.router.observe("web")
        harness.clock.jump(1)
    assert asked.count("/eureka/instances/web-r1-3") == 11, "a new instance: on each request for it"
    lists = [path for path in asked if "instances" not in path]
    assert lists == ["/eureka/apps/", "/eureka/apps/WEB", "/eureka/apps/WEB"], "its like: by their application, when known"


async def test_instance_of_an_application_that_never_registers_is_observed(harness: ExternalServerHarness) -> None:
    await harness.open()
    await harness.router.admit(member(1))
    assert "web-r1-1" in await harness.router.observe("web")


async def test_restart_during_a_drain_waits_the_whole_staleness_again(harness: ExternalServerHarness) -> None:
    await harness.open(1, 2)
    for n in (1, 2):
        await harness.register(n)
    await harness.router.withdraw("web", "web-r1-1")
    harness.clock.jump(30)
    harness.router = harness.start()
    await harness.open(2)
    assert (await harness.router.observe("web"))["web-r1-1"].drain_not_before == harness.clock.now() + 40


async def test_withdrawal_fails_while_the_server_does_not_answer(harness: ExternalServerHarness) -> None:
    await harness.open(1)
    await harness.register(1)

    def dead(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    harness.theirs.client = client(httpx.MockTransport(dead))
    with pytest.raises(RoutingError, match="the Eureka server at theirs does not answer: refused"):
        await harness.router.withdraw("web", "web-r1-1")
    assert (await harness.router.observe("web"))["web-r1-1"].state == "admitted"


async def test_hostile_answers_are_refused_before_they_are_decoded_or_parsed(harness: ExternalServerHarness) -> None:
    await harness.open(1)
    await harness.register(1)
    zipped = gzip.compress(gzip.compress(bytes(50 * 1024 * 1024)))
    words = json.dumps({"instance": {"app": "WEB", "status": "UP" * 1000}}).encode()
    for answer, why in (
        (b"content-encoding: gzip, gzip\r\n\r\n" + zipped, "response has a Content-Encoding"),
        (b"\r\n" + b" " * (MAX_BODY + 1), "response is larger than 4096 KiB"),
        (b"\r\n" + b"[" * 100_000, "does not answer as a Eureka server"),
        (b"\r\n[" + b"[]," * 150_000 + b"[]]", "does not answer as a Eureka server"),
        (b"\r\n" + words, "does not answer as a Eureka server"),
    ):
        async with server(lambda answer=answer: [b"HTTP/1.1 200 x\r\n" + answer]) as url:  # type: ignore[misc]
            theirs = ExternalEureka(harness.clock, outbound=OutboundPolicy((AllowedServer.parse("127.0.0.1"),)))
            service = replace(WEB, eureka=Eureka(url=f"{url}/eureka/", consumer_staleness=40))
            with pytest.raises(RoutingError, match=why):
                await theirs.take_out_of_service(service, "web-r1-1")
            await theirs.close()
