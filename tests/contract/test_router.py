"""What every router must do alike: the fake that the rollouts are tested with, and HAProxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

import pytest

from services.clock import SystemClock
from services.routing.port import Endpoint, EndpointState, RoutedService, Router, RoutingError
from tests.support.docker_cli import ROOT, build
from tests.support.fakes.gateway import FakeGateway
from tests.support.gateway_fixture import IMAGE, PORT, GatewayFixture, real_gateway, service, until
from tests.support.http_instance import HEALTHY

pytestmark = pytest.mark.anyio


class Side(Protocol):
    """A router, and what a test needs to do behind its back."""

    @property
    def router(self) -> Router: ...

    async def member(self, id: str, start: str = ...) -> Endpoint: ...
    async def busy(self, instance: str) -> None: ...
    async def idle(self, instance: str) -> None: ...
    async def reload(self) -> None: ...


class FakeSide:
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


class RealSide:
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

    async def _open(self, instance: str) -> bool:
        return any(each.open for each in self.fixture.instances if each.id == instance)


@pytest.fixture(params=["fake", pytest.param("haproxy", marks=pytest.mark.docker)])
async def side(request: pytest.FixtureRequest) -> AsyncIterator[Side]:
    if request.param == "fake":
        yield FakeSide()
        return
    build(IMAGE, ROOT / "services" / "gateway")
    async with real_gateway() as fixture:
        yield RealSide(fixture)


@pytest.fixture
async def web(side: Side) -> RoutedService:
    """Published."""
    await side.router.publish(service())
    return service()


async def seat(side: Side, instance: str = "web-r1-1") -> EndpointState | None:
    return (await side.router.observe("web")).get(instance)


async def test_nobody_is_admitted_before_their_service_is_published(side: Side) -> None:
    with pytest.raises(RoutingError, match="web"):
        await side.router.admit(await side.member("web-r1-1"))
    assert await side.router.observe("web") == {}


async def test_an_admitted_instance_has_a_seat_and_may_be_admitted_again(side: Side, web: RoutedService) -> None:
    for _ in range(2):
        await side.router.admit(await side.member("web-r1-1"))
        assert await seat(side) == EndpointState("admitted", 0, drained=False, healthy=True)


async def test_a_withdrawn_one_that_is_idle_is_settled(side: Side, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    for _ in range(2):
        await side.router.withdraw("web", "web-r1-1")
        assert await seat(side) == EndpointState("draining", 0, drained=True, healthy=True)


async def test_a_withdrawn_one_keeps_what_it_has_and_is_not_settled_before_that_ends(side: Side, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.busy("web-r1-1")
    await side.router.withdraw("web", "web-r1-1")
    assert await seat(side) == EndpointState("draining", 1, drained=False, healthy=True)
    await side.idle("web-r1-1")
    assert await settled(side)


async def test_a_reload_does_not_hide_what_an_old_worker_has_in_its_hands(side: Side, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.busy("web-r1-1")
    await side.router.withdraw("web", "web-r1-1")
    await side.reload()
    assert await seat(side) == EndpointState("draining", 1, drained=False, healthy=True)
    await side.idle("web-r1-1")
    assert await settled(side)


async def test_one_withdrawn_after_a_reload_is_not_settled_while_an_old_worker_may_send_to_it(
    side: Side, web: RoutedService
) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.busy("web-r1-1")
    await side.reload()
    await side.router.withdraw("web", "web-r1-1")
    assert await seat(side) == EndpointState("draining", 1, drained=False, healthy=True)
    await side.idle("web-r1-1")
    assert await settled(side)


async def test_a_cut_ends_what_it_has_and_says_how_much(side: Side, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.busy("web-r1-1")
    await side.router.withdraw("web", "web-r1-1")
    assert await side.router.force_close("web", "web-r1-1") == 1
    assert await settled(side)
    assert (await seat(side) or EndpointState("admitted")).state == "cut"


async def test_a_cut_reaches_an_old_worker(side: Side, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.busy("web-r1-1")
    await side.router.withdraw("web", "web-r1-1")
    await side.reload()
    assert await side.router.force_close("web", "web-r1-1") == 1
    assert await settled(side)


async def test_admitting_undoes_a_withdrawal(side: Side, web: RoutedService) -> None:
    member = await side.member("web-r1-1")
    await side.router.admit(member)
    await side.router.withdraw("web", "web-r1-1")
    await side.router.admit(member)
    assert await seat(side) == EndpointState("admitted", 0, drained=False, healthy=True)


async def test_a_lost_start_is_out_and_never_comes_back(side: Side, web: RoutedService) -> None:
    member = await side.member("web-r1-1")
    await side.router.admit(member)
    await side.router.mark_dead("web", "web-r1-1", member.start)
    assert (await seat(side) or EndpointState("cut")).state == "cut"
    with pytest.raises(RoutingError, match="died"):
        await side.router.admit(member)
    assert (await seat(side) or EndpointState("cut")).state == "cut"


async def test_one_that_was_lost_before_it_was_admitted_is_refused(side: Side, web: RoutedService) -> None:
    member = await side.member("web-r1-1")
    await side.router.mark_dead("web", "web-r1-1", member.start)
    with pytest.raises(RoutingError, match="died"):
        await side.router.admit(member)
    assert await seat(side) is None


async def test_the_next_start_of_a_lost_one_is_admitted_and_late_news_of_the_first_does_not_touch_it(
    side: Side, web: RoutedService
) -> None:
    member = await side.member("web-r1-1")
    await side.router.admit(member)
    await side.router.mark_dead("web", "web-r1-1", member.start)
    await side.router.admit(replace(member, start="c1@t2"))
    await side.router.mark_dead("web", "web-r1-1", member.start)
    assert await seat(side) == EndpointState("admitted", 0, drained=False, healthy=True)


async def test_a_forgotten_one_has_no_seat(side: Side, web: RoutedService) -> None:
    await side.router.admit(await side.member("web-r1-1"))
    await side.router.admit(await side.member("web-r1-2"))
    await side.router.withdraw("web", "web-r1-1")
    for _ in range(2):
        await side.router.remove("web", "web-r1-1")
        assert set(await side.router.observe("web")) == {"web-r1-2"}


async def test_what_is_not_known_may_be_withdrawn_lost_cut_and_forgotten(side: Side, web: RoutedService) -> None:
    await side.router.withdraw("web", "web-r1-9")
    await side.router.mark_dead("web", "web-r1-9", "c@t")
    assert await side.router.force_close("web", "web-r1-9") == 0
    await side.router.remove("web", "web-r1-9")
    await side.router.unpublish("nobody")
    assert await side.router.observe("nobody") == {}


async def test_two_services_cannot_have_one_route(side: Side, web: RoutedService) -> None:
    with pytest.raises(RoutingError, match="web"):
        await side.router.publish(service("other", 1, routes=web.routes))
    await side.router.publish(service("other", 1))


async def test_an_unpublished_service_gives_its_route_away_and_may_come_back(side: Side, web: RoutedService) -> None:
    await side.router.unpublish("web")
    await side.router.publish(service("other", 1, routes=web.routes))
    await side.router.publish(replace(web, routes=()))
    await side.router.admit(await side.member("web-r1-1"))
    assert await seat(side) == EndpointState("admitted", 0, drained=False, healthy=True)


async def test_restore_keeps_what_is_right_and_mends_what_is_not(side: Side, web: RoutedService) -> None:
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


async def test_restore_leaves_a_lost_start_out(side: Side, web: RoutedService) -> None:
    member = await side.member("web-r1-1")
    await side.router.mark_dead("web", "web-r1-1", member.start)
    await side.router.restore([web], [member])
    assert await seat(side) is None


async def settled(side: Side) -> bool:
    async def look() -> bool:
        found = await seat(side)
        return found is None or found.drained

    return await until(look)
