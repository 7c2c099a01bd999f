"""What consumers see of Sluice's services, and which consumers a drain waits for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.eureka.external_server import ExternalEureka
from services.eureka.instance_info import LeaseStatus
from services.eureka.local_lease_directory import LocalLeaseDirectory
from services.eureka.registry import Registry
from services.eureka.repository import LeaseRepository
from services.eureka.router import RegistryRouter
from services.routing.port import Endpoint, EndpointState, RoutedService
from services.store.database import Store
from services.store.open import open_store
from services.store.tables import Deployment, Instance, Service
from tests.support.eureka_payloads import registration
from tests.support.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio
GATEWAY = ("UP", "10.9.0.1", 18001)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Open a store with two instances of `web`, at 10.9.0.11 and 10.9.0.12."""
    store = open_store(tmp_path)
    with store.write_session() as session:
        session.add(Service(name="web", internal_port=18001, created_at=0))
        session.flush()
        session.add(Deployment(id=1, service="web", kind="deploy", created_at=0))
        for n in (1, 2):
            session.flush()
            session.add(
                Instance(
                    id=f"web-r1-{n}", service="web", revision=1, deployment=1, slot=n, address=f"10.9.0.1{n}", hash="h",
                    created_at=0,
                )
            )  # fmt: skip
    return store


class RouterHarness:
    def __init__(self, store: Store) -> None:
        self.clock = FakeClock()
        self.store = store
        self.registry = Registry(self.clock, LeaseRepository(store))
        self.registry.consumer_view.host = "10.9.0.1"
        self.router = RegistryRouter(self.clock, LocalLeaseDirectory(self.registry), ExternalEureka(self.clock))

    async def open(self, *members: Endpoint, advertise: str = "instances") -> None:
        await self.registry.open()
        await self.router.restore([routed(advertise)], list(members))

    async def register(self, n: int, **fields: Any) -> bool:
        said = registration(f"web-{n}", ipAddr=f"10.9.0.1{n}", **fields)
        return await self.registry.register(said, f"10.9.0.1{n}")

    def shown(self) -> list[tuple[str, str, int]]:
        entries = self.registry.consumer_view.applications.entries()
        return [(entry.status, entry.registration.ip, entry.registration.port.number) for entry in entries]

    def fetch(self, who: str) -> None:
        self.registry.record_fetch(who, "DefaultClient", direct=False)

    async def observed_state(self, n: int = 1) -> EndpointState:
        return (await self.router.observe("web"))[f"web-r1-{n}"]


def routed(advertise: str) -> RoutedService:
    return RoutedService("web", 8080, 18001, advertise=advertise, consumer_cache=35)  # type: ignore[arg-type]


def member(n: int) -> Endpoint:
    return Endpoint(f"web-r1-{n}", "web", f"10.9.0.1{n}", 8080, f"start-{n}")


@pytest.fixture
def harness(store: Store) -> RouterHarness:
    return RouterHarness(store)


async def test_advertise_stable_shows_one_address_that_outlives_every_instance(harness: RouterHarness) -> None:
    await harness.open(advertise="stable")
    assert harness.shown() == []
    await harness.register(1)
    assert harness.shown() == [GATEWAY]
    version = harness.registry.consumer_view.applications.version
    await harness.router.admit(member(1))
    await harness.register(2)
    await harness.router.admit(member(2))
    await harness.router.withdraw("web", "web-r1-1")
    await harness.router.mark_dead("web", "web-r1-1", "start-1")
    await harness.router.remove("web", "web-r1-2")
    assert harness.shown() == [GATEWAY]
    assert harness.registry.consumer_view.applications.version == version, "no consumer has anything new to fetch"
    await harness.router.unpublish("web")
    assert harness.shown() == []


async def test_advertise_stable_drains_without_waiting_for_consumers(harness: RouterHarness) -> None:
    await harness.open(member(1), advertise="stable")
    await harness.register(1)
    harness.fetch("10.9.0.50")
    await harness.router.withdraw("web", "web-r1-1")
    assert (await harness.observed_state()).drained


async def test_instances_are_shown_once_they_are_admitted(harness: RouterHarness) -> None:
    await harness.open()
    await harness.register(1)
    assert harness.shown() == []
    await harness.router.admit(member(1))
    assert harness.shown() == [("UP", "10.9.0.11", 8080)]


async def test_unregistered_instance_is_not_observed_if_others_register(harness: RouterHarness) -> None:
    await harness.open(member(1))
    await harness.register(1)
    await harness.router.admit(member(2))
    assert "web-r1-2" not in await harness.router.observe("web")
    await harness.register(2)
    assert (await harness.observed_state(2)).state == "admitted"


async def test_instance_with_an_expired_lease_stays_admitted(harness: RouterHarness) -> None:
    await harness.open(member(1), member(2))
    await harness.register(1)
    await harness.registry.cancel(("WEB", "web-1"))
    assert (await harness.observed_state()).state == "admitted"


async def test_drain_waits_until_all_consumers_have_fetched_and_their_caches_expired(harness: RouterHarness) -> None:
    await harness.open(member(1), member(2))
    for n in (1, 2):
        await harness.register(n)
    for who in ("10.9.0.50", "10.9.0.51"):
        harness.fetch(who)
    harness.clock.jump(10)
    await harness.router.withdraw("web", "web-r1-1")
    assert ("OUT_OF_SERVICE", "10.9.0.11", 8080) in harness.shown()
    assert not (await harness.observed_state()).drained
    harness.clock.jump(5)
    harness.fetch("10.9.0.50")
    assert (await harness.observed_state()).drain_not_before == float("inf")
    assert "2 consumers of the registry to fetch (10.9.0.50, 10.9.0.51)" in (await harness.observed_state()).drain_blocker
    harness.clock.jump(15)
    harness.fetch("10.9.0.51")
    endpoint_state = await harness.observed_state()
    assert (endpoint_state.drained, endpoint_state.drain_not_before) == (False, harness.clock.now() + 35)
    harness.clock.jump(35)
    assert (await harness.observed_state()).drained


async def test_silent_consumer_does_not_block_a_drain(harness: RouterHarness) -> None:
    await harness.open(member(1))
    await harness.register(1)
    harness.fetch("10.9.0.50")
    await harness.router.withdraw("web", "web-r1-1")
    harness.clock.jump(91)
    assert (await harness.observed_state()).drained
    assert [consumer.address for consumer in await harness.registry.tick()] == ["10.9.0.50"]


async def test_removed_and_dead_instances_are_not_consumers(harness: RouterHarness) -> None:
    await harness.open(member(1), member(2))
    for n in (1, 2):
        await harness.register(n)
        harness.fetch(f"10.9.0.1{n}")
    await harness.router.remove("web", "web-r1-2")
    await harness.router.withdraw("web", "web-r1-1")
    assert (await harness.observed_state()).drain_blocker == "waiting for 1 consumers of the registry to fetch (10.9.0.11)"
    await harness.router.mark_dead("web", "web-r1-1", "start-1")
    assert harness.registry.consumers.present(harness.clock.now()) == []


async def test_draining_instance_that_registers_again_stays_out_of_service(harness: RouterHarness) -> None:
    await harness.open(member(1))
    await harness.register(1)
    await harness.router.withdraw("web", "web-r1-1")
    await harness.register(1)
    assert harness.shown() == [("OUT_OF_SERVICE", "10.9.0.11", 8080)]
    await harness.router.admit(member(1))
    assert harness.shown() == [("UP", "10.9.0.11", 8080)]


async def test_dead_instance_is_hidden_at_once_and_a_removed_one_cannot_register(harness: RouterHarness) -> None:
    await harness.open(member(1), member(2))
    for n in (1, 2):
        await harness.register(n)
    await harness.router.mark_dead("web", "web-r1-1", "start-1")
    assert harness.shown() == [("UP", "10.9.0.12", 8080)]
    await harness.router.remove("web", "web-r1-2")
    assert await harness.register(2, status="DOWN") is False
    assert harness.shown() == []


async def test_foreign_registration_is_shown_unchanged(harness: RouterHarness) -> None:
    await harness.open(advertise="stable")
    foreign = registration("x", "THEIRS", ipAddr="192.168.0.7", status="DOWN", vipAddress="theirs")
    await harness.registry.register(foreign, "192.168.0.7")
    assert harness.shown() == [("DOWN", "192.168.0.7", 8080)]


@pytest.mark.parametrize(("advertise", "shown"), [("stable", [GATEWAY]), ("instances", [("UP", "10.9.0.12", 8080)])])
async def test_registrations_survive_a_restart(
    harness: RouterHarness, store: Store, advertise: str, shown: list[tuple[str, str, int]]
) -> None:
    await harness.open(member(1), member(2), advertise=advertise)
    for n in (1, 2):
        await harness.register(n)
    await harness.registry.override(("WEB", "web-2"), LeaseStatus.OUT_OF_SERVICE)
    await harness.registry.remove_override(("WEB", "web-2"), LeaseStatus.UP)
    await harness.registry.cancel(("WEB", "web-1"))
    again = RouterHarness(store)
    await again.open(member(1), member(2), advertise=advertise)
    assert again.shown() == shown


async def test_drain_after_a_restart_waits_for_unknown_consumers(harness: RouterHarness, store: Store) -> None:
    await harness.open(member(1), member(2))
    await harness.register(1)
    harness.fetch("10.9.0.50")
    await harness.router.withdraw("web", "web-r1-1")
    again = RouterHarness(store)
    await again.open(member(2))
    assert not (await again.observed_state()).drained
    again.clock.jump(90 + 35)
    assert (await again.observed_state()).drained


async def test_delta_suffices_only_for_a_consumer_that_fetched_recently(harness: RouterHarness) -> None:
    notice: Callable[[], bool] = lambda: harness.registry.record_fetch("10.9.0.50", "me", direct=False)  # noqa: E731
    assert not notice()
    harness.clock.jump(30)
    assert notice()
    harness.clock.jump(400)
    assert not notice()


async def test_change_to_advertise_stable_still_waits_for_consumers_of_instances(harness: RouterHarness) -> None:
    await harness.open(member(1))
    await harness.register(1)
    harness.fetch("10.9.0.50")
    await harness.router.publish(routed("stable"))
    await harness.router.withdraw("web", "web-r1-1")
    assert not (await harness.observed_state()).drained
    harness.fetch("10.9.0.50")
    harness.clock.jump(35)
    assert (await harness.observed_state()).drained
