"""The contract of every router: HAProxy, and the fake that the rollouts are tested with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

import pytest

from services.clock import SystemClock
from services.loadtest.http1_client import ConnectionBroken
from services.routing.port import Endpoint, EndpointState, RoutedService, Router, RoutingError
from tests.support.docker_cli import ROOT, build
from tests.support.fakes.gateway import FakeGateway
from tests.support.gateway_fixture import IMAGE, PORT, GatewayFixture, real_gateway, service, until
from tests.support.http_instance import HEALTHY, Instance

pytestmark = pytest.mark.anyio


class RouterHarness(Protocol):
    """A router, and what a test does to it from outside."""

    @property
    def router(self) -> Router: ...

    async def member(self, id: str, start: str = ...) -> Endpoint: ...
    async def busy(self, instance: str) -> None: ...
    async def idle(self, instance: str) -> None: ...
    async def reload(self) -> None: ...
    async def fail(self, instance: str, check: str) -> None: ...
    async def heal(self, instance: str) -> None: ...


class FakeRouterHarness:
    def __init__(self) -> None:
        self.router = FakeGateway(SystemClock())

    async def member(self, id: str, start: str = "c1@t1") -> Endpoint:
        return Endpoint(id, id.rpartition("-r")[0], f"10.0.0.{id.rpartition('-')[2]}", PORT, start, HEALTHY)

    async def busy(self, instance: str) -> None:
        self.router.busy(instance, 1)

    async def idle(self, instance: str) -> None:
        for position, worker in enumerate(self.router.workers):
            if instance in worker.servers:
                self.router.busy(instance, 0, worker=position)

    async def reload(self) -> None:
        self.router.reload()

    async def fail(self, instance: str, check: str) -> None:
        self.router.make_unhealthy(instance, check=check)

    async def heal(self, instance: str) -> None:
        self.router.make_unhealthy(instance, healthy=True)


class HaproxyRouterHarness:
    def __init__(self, fixture: GatewayFixture) -> None:
        self.fixture = fixture
        self.router = fixture.gateway
        self.reloads = 0

    async def member(self, id: str, start: str = "c1@t1") -> Endpoint:
        known = next((instance for instance in self.fixture.instances if instance.id == id), None)
        return (known or await self.fixture.instance(id)).endpoint(start)

    async def busy(self, instance: str) -> None:
        self.task = asyncio.create_task(self.fixture.ask("/web/wait"))
        await until(lambda: self._open(instance))

    async def idle(self, instance: str) -> None:
        next(each for each in self.fixture.instances if each.id == instance).release.set()
        await self.task

    async def reload(self) -> None:
        self.reloads += 1
        await self.router.publish(service(f"other{self.reloads}", self.reloads))

    async def fail(self, instance: str, check: str) -> None:
        """Let the instance's checks fail with these words, of which "L7TOUT…" stands for a hung process."""
        found = self._instance(instance)
        if check.startswith("L7TOUT"):
            found.hangs = True
        else:
            found.health = int(check.split()[1])

    async def heal(self, instance: str) -> None:
        found = self._instance(instance)
        found.hangs, found.health = False, 200

    def _instance(self, id: str) -> Instance:
        return next(instance for instance in self.fixture.instances if instance.id == id)

    async def _open(self, instance: str) -> bool:
        return any(each.open for each in self.fixture.instances if each.id == instance)


@pytest.fixture(params=["fake", pytest.param("haproxy", marks=pytest.mark.docker)])
async def side(request: pytest.FixtureRequest) -> AsyncIterator[RouterHarness]:
    if request.param == "fake":
        yield FakeRouterHarness()
        return
    build(IMAGE, ROOT / "services" / "gateway")
    async with real_gateway() as fixture:
        yield HaproxyRouterHarness(fixture)


@pytest.fixture
async def web(side: RouterHarness) -> RoutedService:
    """Publish the service `web` and return it."""
    await side.router.publish(service())
    return service()


async def observed_state(side: RouterHarness, instance: str = "web-r1-1") -> EndpointState | None:
    return (await side.router.observe("web")).get(instance)


async def test_endpoint_of_an_unpublished_service_is_not_admitted(side: RouterHarness) -> None:
    with pytest.raises(RoutingError, match="web"):
        await side.router.admit(await side.member("web-r1-1"))
    assert await side.router.observe("web") == {}


async def test_admitted_endpoint_is_observed_and_admit_is_idempotent(side: RouterHarness, web: RoutedService) -> None:
    for _ in range(2):
        await side.router.admit(await side.member("web-r1-1"))
        assert await observed_state(side) == EndpointState("admitted", 0, drained=False, healthy=True)


async def test_withdrawn_idle_endpoint_is_drained(side: RouterHarness, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    for _ in range(2):
        await side.router.withdraw("web", "web-r1-1")
        assert await observed_state(side) == EndpointState("draining", 0, drained=True, healthy=True)


async def test_withdrawn_endpoint_is_drained_once_its_requests_have_ended(side: RouterHarness, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.busy("web-r1-1")
    await side.router.withdraw("web", "web-r1-1")
    assert await observed_state(side) == EndpointState("draining", 1, drained=False, healthy=True)
    await side.idle("web-r1-1")
    assert await settled(side)


async def test_requests_in_flight_on_an_old_worker_are_counted_after_a_reload(
    side: RouterHarness, web: RoutedService
) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.busy("web-r1-1")
    await side.router.withdraw("web", "web-r1-1")
    await side.reload()
    assert await observed_state(side) == EndpointState("draining", 1, drained=False, healthy=True)
    await side.idle("web-r1-1")
    assert await settled(side)


async def test_endpoint_withdrawn_after_a_reload_is_not_drained_while_old_workers_are_busy(
    side: RouterHarness, web: RoutedService
) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.busy("web-r1-1")
    await side.reload()
    await side.router.withdraw("web", "web-r1-1")
    assert await observed_state(side) == EndpointState("draining", 1, drained=False, healthy=True)
    await side.idle("web-r1-1")
    assert await settled(side)


async def test_force_close_ends_requests_in_flight_and_returns_their_number(side: RouterHarness, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.busy("web-r1-1")
    await side.router.withdraw("web", "web-r1-1")
    assert await side.router.force_close("web", "web-r1-1") == 1
    assert await settled(side)
    assert (await observed_state(side) or EndpointState("admitted")).state == "closed"


async def test_force_close_reaches_an_old_worker(side: RouterHarness, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.busy("web-r1-1")
    await side.router.withdraw("web", "web-r1-1")
    await side.reload()
    assert await side.router.force_close("web", "web-r1-1") == 1
    assert await settled(side)


async def test_admit_undoes_a_withdrawal(side: RouterHarness, web: RoutedService) -> None:
    member = await side.member("web-r1-1")
    await side.router.admit(member)
    await side.router.withdraw("web", "web-r1-1")
    await side.router.admit(member)
    assert await observed_state(side) == EndpointState("admitted", 0, drained=False, healthy=True)


async def test_dead_start_is_out_and_cannot_be_admitted_again(side: RouterHarness, web: RoutedService) -> None:
    member = await side.member("web-r1-1")
    await side.router.admit(member)
    await side.router.mark_dead("web", "web-r1-1", member.start_id)
    assert (await observed_state(side) or EndpointState("closed")).state == "closed"
    with pytest.raises(RoutingError, match="died"):
        await side.router.admit(member)
    assert (await observed_state(side) or EndpointState("closed")).state == "closed"


async def test_start_that_died_before_it_was_admitted_is_refused(side: RouterHarness, web: RoutedService) -> None:
    member = await side.member("web-r1-1")
    await side.router.mark_dead("web", "web-r1-1", member.start_id)
    with pytest.raises(RoutingError, match="died"):
        await side.router.admit(member)
    assert await observed_state(side) is None


async def test_next_start_is_admitted_and_unaffected_by_a_late_death_of_the_first(
    side: RouterHarness, web: RoutedService
) -> None:
    member = await side.member("web-r1-1")
    await side.router.admit(member)
    await side.router.mark_dead("web", "web-r1-1", member.start_id)
    await side.router.admit(replace(member, start_id="c1@t2"))
    await side.router.mark_dead("web", "web-r1-1", member.start_id)
    assert await observed_state(side) == EndpointState("admitted", 0, drained=False, healthy=True)


async def test_removed_endpoint_is_not_observed(side: RouterHarness, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.router.admit(await side.member("web-r1-2"))
    await side.router.withdraw("web", "web-r1-1")
    for _ in range(2):
        await side.router.remove("web", "web-r1-1")
        assert set(await side.router.observe("web")) == {"web-r1-2"}


@pytest.mark.parametrize("reloads", [0, 1])
async def test_removal_ends_requests_of_an_instance_that_lost_its_network(
    side: RouterHarness, web: RoutedService, reloads: int
) -> None:
    member = await side.member("web-r1-1")
    await side.router.admit(member)
    await side.busy("web-r1-1")
    for _ in range(reloads):
        await side.reload()
    await side.router.mark_dead("web", "web-r1-1", member.start_id)
    await side.router.remove("web", "web-r1-1")
    assert await side.router.observe("web") == {}
    if isinstance(side, HaproxyRouterHarness):
        with pytest.raises(ConnectionBroken):
            await side.task


async def test_unknown_endpoint_may_be_withdrawn_marked_dead_force_closed_and_removed(
    side: RouterHarness, web: RoutedService
) -> None:
    await side.router.withdraw("web", "web-r1-9")
    await side.router.mark_dead("web", "web-r1-9", "c@t")
    assert await side.router.force_close("web", "web-r1-9") == 0
    await side.router.remove("web", "web-r1-9")
    await side.router.unpublish("missing")
    assert await side.router.observe("missing") == {}


@pytest.mark.parametrize("check", ["L7STS 503", "L7TOUT after 2000 ms"])
async def test_failed_check_is_reported_in_the_routers_words_until_a_check_passes(
    side: RouterHarness, web: RoutedService, check: str
) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.router.admit(await side.member("web-r1-2"))
    await side.fail("web-r1-1", check)
    failed = await until(lambda: state_if(side, healthy=False)) or EndpointState("closed")
    assert (failed.state, failed.check) == ("admitted", check)
    assert (await side.router.observe("web"))["web-r1-2"] == EndpointState("admitted")
    await side.heal("web-r1-1")
    assert await until(lambda: state_if(side, healthy=True)) == EndpointState("admitted")


async def test_unhealthy_endpoint_stays_unhealthy_across_a_reload(side: RouterHarness, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.fail("web-r1-1", "L7STS 503")
    before = await until(lambda: state_if(side, healthy=False))
    await side.reload()
    assert await observed_state(side) == before


async def test_observe_all_returns_what_observe_returns_for_each_service(side: RouterHarness, web: RoutedService) -> None:
    await side.router.publish(service("shop", 1))
    for id in ("web-r1-1", "web-r1-2", "shop-r1-1"):
        await side.router.admit(await side.member(id))
    await side.router.withdraw("web", "web-r1-2")
    await side.router.remove("web", "web-r1-2")
    assert await side.router.observe_all() == {name: await side.router.observe(name) for name in ("web", "shop")}


async def state_if(side: RouterHarness, *, healthy: bool) -> EndpointState | None:
    found = await observed_state(side)
    return found if found is not None and found.healthy is healthy else None


async def test_route_of_another_service_is_refused(side: RouterHarness, web: RoutedService) -> None:
    with pytest.raises(RoutingError, match="web"):
        await side.router.publish(service("other", 1, routes=web.routes))
    await side.router.publish(service("other", 1))


async def test_unpublished_service_frees_its_route_and_may_be_published_again(
    side: RouterHarness, web: RoutedService
) -> None:
    await side.router.unpublish("web")
    await side.router.publish(service("other", 1, routes=web.routes))
    await side.router.publish(replace(web, routes=()))
    await side.router.admit(await side.member("web-r1-1"))
    assert await observed_state(side) == EndpointState("admitted", 0, drained=False, healthy=True)


async def test_restore_admits_missing_endpoints_and_drains_unlisted_ones(side: RouterHarness, web: RoutedService) -> None:
    retained, gone, missing = [await side.member(f"web-r1-{n}") for n in (1, 2, 3)]
    await side.router.admit(retained)
    await side.router.admit(gone)
    await side.router.restore([web], [retained, missing])
    endpoint_states = await side.router.observe("web")
    assert {id: endpoint_state.state for id, endpoint_state in endpoint_states.items()} == {
        "web-r1-1": "admitted",
        "web-r1-2": "draining",
        "web-r1-3": "admitted",
    }


async def test_restore_does_not_admit_a_dead_start(side: RouterHarness, web: RoutedService) -> None:
    member = await side.member("web-r1-1")
    await side.router.mark_dead("web", "web-r1-1", member.start_id)
    await side.router.restore([web], [member])
    assert await observed_state(side) is None


async def settled(side: RouterHarness) -> bool:
    async def look() -> bool:
        found = await observed_state(side)
        return found is None or found.drained

    return await until(look)
