"""Where the port may be used from: the instances' network, the host, allowed addresses."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from pathlib import Path

import anyio
import httpx
import pytest

from app.eureka.asgi import EurekaApp
from app.eureka.auth import EurekaAuth
from app.eureka.server import serve
from services.actor import Actor
from services.auth.access import AuthService
from services.auth.tokens import TokenKey
from services.eureka.registry import Registry
from services.eureka.repository import LeaseRepository
from services.grant import Grant
from services.store.database import Store
from services.store.open import open_store
from services.store.tables import Deployment, Instance, Service
from tests.app.eureka.conftest import free_port
from tests.support.eureka_payloads import said
from tests.support.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio
BRIDGE, OPENED = "10.9.0.1", "192.168.0.1"
WEB, THIEF, NEIGHBOUR, FOREIGN = "10.9.0.11", "10.9.0.21", "10.9.0.200", "192.168.0.7"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path)
    with store.write_session() as session:
        for n, (service, address) in enumerate((("web", WEB), ("thief", THIEF)), 1):
            session.add(Service(name=service, internal_port=18000 + n, created_at=0))
            session.flush()
            session.add(Deployment(id=n, service=service, kind="deploy", created_at=0))
            session.flush()
            session.add(
                Instance(id=f"{service}-r1-1", service=service, revision=1, deployment=n, slot=1, address=address, hash="h",
                         created_at=0)
            )  # fmt: skip
    return store


@pytest.fixture
def registry(store: Store) -> Registry:
    registry = Registry(FakeClock(), LeaseRepository(store))
    registry.consumer_view.host = BRIDGE
    registry.ownership.network = IPv4Network("10.9.0.0/24")
    return registry


class Port:
    """The Eureka port, called with a source address and a `token` as the client's password."""

    def __init__(self, registry: Registry, access: AuthService | None = None) -> None:
        self.app = EurekaApp(registry, EurekaAuth(access))

    async def ask(self, method: str, path: str, source: str, at: str = BRIDGE, token: str = "", **request: object) -> int:
        transport = httpx.ASGITransport(self.app, client=(source, 40000))
        shown = "Basic " + base64.b64encode(f"any:{token}".encode()).decode()
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{at}:8761/eureka/") as client:
            answer = await client.request(
                method, path, json=request or None, headers={"authorization": shown} if token else {}
            )
        assert answer.status_code != 403 or method == "POST" or answer.content == b"", "clients read a document there"
        return answer.status_code

    async def registers(self, source: str, at: str = BRIDGE, token: str = "", app: str = "LEGACY", id: str = "a") -> int:
        return await self.ask("POST", f"apps/{app}", source, at, token, **said(id, app, vipAddress=app.lower()))

    async def changes(self, source: str, at: str = BRIDGE, token: str = "", app: str = "LEGACY") -> set[int]:
        """Try every change of the lease, its cancellation last, and return the statuses."""
        path = f"apps/{app}/a"
        calls = [("PUT", path), ("PUT", f"{path}/status?value=OUT_OF_SERVICE"), ("DELETE", f"{path}/status?value=UP"),
                 ("PUT", f"{path}/metadata?k=v"), ("DELETE", path)]  # fmt: skip
        return {await self.ask(method, path, source, at, token) for method, path in calls}


@pytest.fixture
def port(registry: Registry) -> Port:
    return Port(registry)


@pytest.mark.parametrize(
    ("source", "at", "heard"),
    [(WEB, BRIDGE, True), (NEIGHBOUR, BRIDGE, True), (BRIDGE, BRIDGE, True), (FOREIGN, BRIDGE, False),
     ("172.18.0.4", BRIDGE, False), ("127.0.0.1", BRIDGE, True), ("", BRIDGE, False), (FOREIGN, OPENED, True),
     (WEB, OPENED, True), (f"::ffff:{FOREIGN}", f"[::ffff:{BRIDGE}]", False)],
)  # fmt: skip
async def test_port_answers_instances_on_the_bridge_and_others_only_where_opened(
    port: Port, source: str, at: str, heard: bool
) -> None:
    assert await port.ask("GET", "apps/", source, at) == (200 if heard else 403)
    assert await port.registers(source, at) == (204 if heard else 403)


@pytest.mark.parametrize("at", [BRIDGE, OPENED])
async def test_lease_of_an_instance_is_changed_only_by_the_instance(port: Port, at: str) -> None:
    assert await port.registers(WEB, at, app="WEB") == 204
    for source, where in ((THIEF, at), (NEIGHBOUR, at), (BRIDGE, BRIDGE), (FOREIGN, OPENED)):
        assert await port.registers(source, where, app="WEB", id="b") == 403
        assert await port.changes(source, where, app="WEB") == {403}
    assert await port.changes(WEB, at, app="WEB") == {200}


@pytest.mark.parametrize(
    ("source", "at"), [(NEIGHBOUR, BRIDGE), (BRIDGE, BRIDGE), (FOREIGN, OPENED), ("127.0.0.1", "127.0.0.1")]
)
async def test_foreign_client_registers_and_changes_its_lease_from_allowed_addresses(
    port: Port, source: str, at: str
) -> None:
    assert await port.registers(source, at) == 204
    assert await port.changes("192.168.0.8", OPENED) == {403}
    assert await port.changes(THIEF) == {403}
    assert await port.changes(source, at) == {200}
    assert await port.changes(source, at) == {404}


async def test_token_registers_covered_applications_and_changes_them_from_any_address(
    store: Store, registry: Registry
) -> None:
    access = AuthService(store, FakeClock(), TokenKey.of(store.path.parent))
    await access.open(lambda _: None)
    by = Actor("system", "test")
    _, bound = await access.create("legacy", "deploy", Grant(("legacy", "web")), None, by)
    _, other = await access.create("other", "deploy", Grant(("other",)), None, by)
    port = Port(registry, access)
    assert await port.registers(FOREIGN, OPENED, other) == 403
    assert await port.registers(FOREIGN, OPENED, bound) == 204
    assert await port.changes(FOREIGN, OPENED, other) == {403}
    assert await port.changes("192.168.0.8", OPENED, bound) == {200}
    assert await port.registers(FOREIGN, OPENED, bound, app="WEB") == 403, "Sluice runs it"
    assert await port.registers(WEB, BRIDGE, bound, app="WEB") == 204
    assert await port.changes(FOREIGN, OPENED, bound, app="WEB") == {403}
    assert await port.changes(THIEF, BRIDGE, bound, app="WEB") == {403}
    assert await port.ask("GET", "apps/", FOREIGN, BRIDGE, bound) == 403


@asynccontextmanager
async def listening(registry: Registry, address: str) -> AsyncIterator[str]:
    port = free_port()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve, EurekaApp(registry, EurekaAuth(None)), [address], port)
        while True:
            try:
                await (await anyio.connect_tcp(address, port)).aclose()
                break
            except OSError:
                await anyio.sleep(0.01)
        yield f"http://{address}:{port}/eureka/"
        tasks.cancel_scope.cancel()


async def test_client_is_identified_by_its_connection_not_by_forwarded_headers(registry: Registry) -> None:
    async with listening(registry, "127.0.0.1") as url, httpx.AsyncClient(headers={"X-Forwarded-For": WEB}) as client:
        assert (await client.post(f"{url}apps/WEB", json=said())).status_code == 403
