"""Which clients may register an application or change a lease."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from services.eureka.external_server import ExternalEureka
from services.eureka.instance_info import InvalidRegistration, LeaseStatus
from services.eureka.leases import LeaseNotFound
from services.eureka.local_lease_directory import LocalLeaseDirectory
from services.eureka.ownership import MAX_APPLICATIONS, MAX_OF_ADDRESS, Forbidden
from services.eureka.registry import Registry
from services.eureka.repository import LeaseRepository
from services.eureka.router import RegistryRouter
from services.routing.port import Endpoint, RoutedService
from services.store.database import Store
from services.store.open import open_store
from services.store.tables import Deployment, Instance, Service
from tests.support.eureka_payloads import registration
from tests.support.fakes.clock import FakeClock

pytestmark = pytest.mark.anyio
BRIDGE, FOREIGN, NEIGHBOUR = "10.9.0.1", "192.168.0.7", "10.9.0.200"
WEB, SIBLING, THIEF = "10.9.0.11", "10.9.0.12", "10.9.0.21"
"""Two instances of `web`, and one of `thief`."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path)
    with store.write_session() as session:
        for n, (service, addresses) in enumerate({"web": [WEB, SIBLING], "thief": [THIEF]}.items(), 1):
            session.add(Service(name=service, internal_port=18000 + n, created_at=0))
            session.flush()
            session.add(Deployment(id=n, service=service, kind="deploy", created_at=0))
            session.flush()
            for slot, address in enumerate(addresses, 1):
                session.add(
                    Instance(
                        id=f"{service}-r1-{slot}", service=service, revision=1, deployment=n, slot=slot, address=address,
                        hash="h", created_at=0,
                    )
                )  # fmt: skip
    return store


class Sluice:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.registry = Registry(FakeClock(), LeaseRepository(store))
        self.registry.consumer_view.host = BRIDGE
        self.registry.ownership.network = IPv4Network("10.9.0.0/24")
        self.router = RegistryRouter(
            self.registry.clock, LocalLeaseDirectory(self.registry), ExternalEureka(self.registry.clock)
        )

    async def start(self) -> None:
        await self.registry.open()
        await self.router.restore([routed("web"), routed("thief")], [])

    async def register(self, app: str, address: str, id: str = "", vip: str = "", **rest: Callable[[str], bool]) -> None:
        said = registration(id or f"{app}:{address}", app, ipAddr=address, vipAddress=vip or app.lower())
        await self.registry.register(said, address, **rest)

    def may(self, app: str, id: str, address: str, *, by_token: bool = False) -> bool:
        try:
            self.registry.ownership.check_change((app, id), address, by_token=by_token)
        except Forbidden:
            return False
        return True

    def shown(self, app: str) -> set[str]:
        return {
            entry.registration.ip
            for entry in self.registry.consumer_view.applications.entries()
            if entry.registration.app == app
        }

    def registered(self) -> set[tuple[str, str]]:
        return {entry.key for entry in self.registry.leases.applications.entries()}


def routed(name: str, advertise: str = "stable") -> RoutedService:
    return RoutedService(name, 8080, 18001, advertise=advertise)  # type: ignore[arg-type]


@pytest.fixture
async def sluice(store: Store) -> Sluice:
    made = Sluice(store)
    await made.start()
    return made


@pytest.mark.parametrize("address", [THIEF, FOREIGN, NEIGHBOUR, BRIDGE])
@pytest.mark.parametrize("names", [("WEB", ""), ("web", ""), ("OTHER", "web"), ("OTHER", "other,WEB"), ("OTHER", " web ")])
async def test_application_of_a_service_is_registered_only_by_its_instances(
    sluice: Sluice, address: str, names: tuple[str, str]
) -> None:
    await sluice.register("WEB", WEB)
    with pytest.raises(Forbidden, match="the name web cannot be registered from here: Sluice runs it"):
        await sluice.register(names[0], address, "x", names[1])
    assert sluice.registered() == {("WEB", f"WEB:{WEB}")}
    assert sluice.shown("WEB") == {BRIDGE}


async def test_name_of_a_service_is_reserved_before_its_first_registration(sluice: Sluice) -> None:
    for address in (THIEF, FOREIGN):
        with pytest.raises(Forbidden):
            await sluice.register("WEB", address)


async def test_owner_is_determined_by_the_source_address_not_by_the_registration(sluice: Sluice) -> None:
    with pytest.raises(Forbidden):
        await sluice.registry.register(registration("x", "WEB", ipAddr=WEB), THIEF)
    await sluice.registry.register(registration("x", "THIEF", ipAddr=WEB, vipAddress="thief"), THIEF)
    assert sluice.registry.consumer_view.owners[("THIEF", "x")].service == "thief"


async def test_lease_is_changed_only_from_the_address_that_registered_it(sluice: Sluice) -> None:
    await sluice.register("WEB", WEB, "a")
    await sluice.register("LEGACY", FOREIGN, "b")
    for address in (SIBLING, THIEF, FOREIGN, NEIGHBOUR, BRIDGE, ""):
        assert not sluice.may("WEB", "a", address)
        assert not sluice.may("WEB", "a", address, by_token=True), "a token does not make a client an instance"
    assert sluice.may("WEB", "a", WEB)
    assert sluice.may("LEGACY", "b", FOREIGN)
    assert not sluice.may("LEGACY", "b", "192.168.0.8")
    assert sluice.may("LEGACY", "b", "192.168.0.8", by_token=True), "elsewhere the token tells clients apart"
    assert not sluice.may("LEGACY", "b", THIEF, by_token=True)
    with pytest.raises(LeaseNotFound):
        sluice.may("WEB", "none", THIEF)


async def test_lease_is_not_replaced_by_a_registration_from_another_address(sluice: Sluice) -> None:
    await sluice.register("LEGACY", FOREIGN, "b")
    for address in ("192.168.0.8", NEIGHBOUR, THIEF):
        with pytest.raises(Forbidden, match="registered from another address"):
            await sluice.register("LEGACY", address, "b")
    await sluice.register("LEGACY", FOREIGN, "b")
    assert sluice.shown("LEGACY") == {FOREIGN}


async def test_instances_with_the_same_id_replace_each_other_within_their_service(sluice: Sluice) -> None:
    await sluice.register("WEB", WEB, "localhost")
    await sluice.register("WEB", SIBLING, "localhost")
    assert sluice.registry.consumer_view.owners[("WEB", "localhost")].instance == "web-r1-2"
    assert sluice.may("WEB", "localhost", SIBLING)
    assert not sluice.may("WEB", "localhost", WEB)


async def test_instance_may_register_a_foreign_application_exclusively(sluice: Sluice) -> None:
    await sluice.register("SHOP", WEB)
    assert sluice.shown("SHOP") == {BRIDGE}
    for address in (THIEF, FOREIGN):
        with pytest.raises(Forbidden):
            await sluice.register("SHOP", address, "x")
    await sluice.register("SHOP", SIBLING)
    assert len(sluice.registered()) == 2


async def test_earlier_foreign_registration_coexists_with_that_of_a_service(sluice: Sluice) -> None:
    await sluice.register("SHOP", FOREIGN, "old")
    await sluice.register("SHOP", WEB, "new")
    assert sluice.shown("SHOP") == {FOREIGN, BRIDGE}
    await sluice.register("SHOP", FOREIGN, "old")
    await sluice.register("SHOP", THIEF, "thief")
    assert sluice.registry.consumer_view.descriptions["SHOP"][0] == "web", (
        "the first service stays what consumers are sent to"
    )
    await sluice.registry.cancel(("SHOP", "old"))
    with pytest.raises(Forbidden):
        await sluice.register("SHOP", FOREIGN, "old")


@pytest.mark.parametrize("advertise", ["stable", "instances"])
async def test_new_service_reclaims_its_name_from_services_at_once_and_others_later(
    sluice: Sluice, store: Store, advertise: str
) -> None:
    await sluice.register("API", FOREIGN, "old")
    await sluice.register("API", THIEF, "thief")
    await sluice.register("BAIT", THIEF, "bait", "bait,api")
    with store.write_session() as session:
        session.add(Service(name="api", internal_port=18009, created_at=0))
        session.flush()
        session.add(Instance(id="api-r1-1", service="api", revision=1, deployment=1, slot=1, address="10.9.0.31", hash="h",
                             created_at=0))  # fmt: skip
    await sluice.router.publish(routed("api", advertise))
    assert sluice.registered() == {("API", "old")}
    assert sluice.shown("API") == {FOREIGN}
    assert sluice.may("API", "old", FOREIGN)
    await sluice.register("API", "10.9.0.31", "new")
    await sluice.router.admit(Endpoint("api-r1-1", "api", "10.9.0.31", 8080, "start"))
    assert sluice.registered() == {("API", "new")}
    assert sluice.shown("API") == {BRIDGE if advertise == "stable" else "10.9.0.31"}
    with pytest.raises(Forbidden):
        await sluice.register("API", FOREIGN, "old")


async def test_name_of_a_removed_service_is_free(sluice: Sluice, store: Store) -> None:
    await sluice.register("WEB", WEB, "a")
    with store.write_session() as session:
        session.get_one(Service, "web").removed = True
    await sluice.router.remove("web", "web-r1-1")
    await sluice.router.unpublish("web")
    await sluice.register("WEB", FOREIGN, "b")
    assert sluice.shown("WEB") == {FOREIGN}


async def test_source_addresses_of_leases_survive_a_restart(sluice: Sluice, store: Store) -> None:
    await sluice.register("WEB", WEB, "a")
    await sluice.registry.register(registration("b", "LEGACY", ipAddr="172.18.0.4", vipAddress="legacy"), FOREIGN)
    await sluice.registry.override(("LEGACY", "b"), LeaseStatus.OUT_OF_SERVICE)
    again = Sluice(store)
    await again.start()
    assert again.may("WEB", "a", WEB)
    assert again.may("LEGACY", "b", FOREIGN)
    assert not again.may("WEB", "a", THIEF)
    assert not again.may("LEGACY", "b", "172.18.0.4")
    with pytest.raises(Forbidden):
        await again.register("WEB", THIEF, "x")


async def test_token_must_cover_every_name_of_a_registration(sluice: Sluice) -> None:
    def covers(name: str) -> bool:
        return name == "legacy"

    await sluice.register("LEGACY", FOREIGN, "a", covers=covers)
    with pytest.raises(Forbidden, match="the name payments cannot be registered from here: the token may not change it"):
        await sluice.register("LEGACY", FOREIGN, "b", "legacy,payments", covers=covers)


async def test_registrations_of_one_address_are_limited(sluice: Sluice) -> None:
    for n in range(MAX_OF_ADDRESS):
        await sluice.register("THIEF", THIEF, str(n))
    with pytest.raises(InvalidRegistration, match=f"Limit of {MAX_OF_ADDRESS} registrations from {THIEF} reached"):
        await sluice.register("THIEF", THIEF, "more")
    await sluice.register("THIEF", THIEF, "0")
    await sluice.register("WEB", WEB)


async def test_applications_of_one_service_are_limited(sluice: Sluice) -> None:
    for n in range(MAX_APPLICATIONS):
        await sluice.register(f"APP{n}", THIEF, "a")
        await sluice.registry.cancel((f"APP{n}", "a"))
    with pytest.raises(InvalidRegistration, match=f"Limit of {MAX_APPLICATIONS} applications of the service thief reached"):
        await sluice.register("MORE", THIEF, "a")
