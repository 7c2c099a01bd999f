"""The observation names the part that does not answer, and the operations that it may contradict."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.clock import SystemClock
from services.engine.port import EngineError
from services.probes import Prober
from services.readiness import Readiness
from services.rollouts.reconciler.linking import LinkedServices
from services.rollouts.reconciler.observation import Observer
from services.rollouts.reconciler.ports import Ports
from services.rollouts.reconciler.service_state import ServiceState
from services.routing.port import RoutedService, RoutingError
from services.store.open import open_store
from tests.support.fakes.engine import FakeEngine
from tests.support.fakes.gateway import FakeGateway

pytestmark = pytest.mark.anyio


class ObserverFixture:
    """An observer of a fake engine, a gateway and a registry."""

    def __init__(self, path: Path) -> None:
        clock = SystemClock()
        self.engine = FakeEngine(clock)
        self.gateway, self.registry = FakeGateway(clock), FakeGateway(clock, name="registry")
        self.readiness = Readiness()
        self.states: dict[str, ServiceState] = {}
        self.enqueued: list[str] = []
        ports = Ports(open_store(path), clock, self.engine, [self.gateway, self.registry])
        self.links = LinkedServices(ports.store, self.states, self.enqueued.append)
        prober = Prober(clock, lambda _: None)
        self.observer = Observer(ports, prober, self.readiness, self.links, subnet="10.0.0.0/24", watched_since=0)


@pytest.fixture
def observer_fixture(tmp_path: Path) -> ObserverFixture:
    return ObserverFixture(tmp_path)


async def test_router_that_does_not_answer_is_reported_by_its_name(observer_fixture: ObserverFixture) -> None:
    observer_fixture.registry.silent = True
    with pytest.raises(RoutingError):
        await observer_fixture.observer.observe("web", ServiceState())
    assert observer_fixture.readiness.not_ready() == {"registry": "The gateway does not answer"}
    observer_fixture.registry.silent = False
    await observer_fixture.observer.observe("web", ServiceState())
    assert observer_fixture.readiness.not_ready() == {}


async def test_engine_that_does_not_answer_is_reported_as_engine(observer_fixture: ObserverFixture) -> None:
    observer_fixture.engine.become_unreachable()
    with pytest.raises(EngineError):
        await observer_fixture.observer.observe("web", ServiceState())
    assert list(observer_fixture.readiness.not_ready()) == ["engine"]


async def test_operation_that_ends_during_the_observation_is_observed_again(observer_fixture: ObserverFixture) -> None:
    state = ServiceState()

    async def end(_call: str, _service: str) -> None:
        state.operations.pop("web-r1-1", None)

    observer_fixture.gateway.before = end
    state.operations = {key: asyncio.create_task(asyncio.sleep(3600)) for key in ("web-r1-1", "web-r1-2")}
    tasks = list(state.operations.values())
    observation = await observer_fixture.observer.observe("web", state)
    for task in tasks:
        task.cancel()
    assert observation.busy == {"web-r1-2"}
    assert [call for call, _ in observer_fixture.gateway.calls] == ["observe", "observe"]


async def test_service_waits_only_for_links_that_are_still_unserved(observer_fixture: ObserverFixture) -> None:
    observer_fixture.states["api"] = ServiceState(published=RoutedService("api", 8000, 20001))
    assert (await observer_fixture.observer.observe("web", ServiceState())).unserved_links == {"api": None}
    observer_fixture.links.wait("web", frozenset({"api"}), 0)
    assert observer_fixture.enqueued == []
    observer_fixture.links.publication_changed()
    assert observer_fixture.enqueued == ["web"]
    observer_fixture.states["api"].published = RoutedService("api", 8000, 20001, linked=True)
    observer_fixture.links.wait("web", frozenset({"api"}), 0)  # served since the observation
    assert observer_fixture.enqueued == ["web", "web"]
    observer_fixture.links.wait("web", frozenset(), 0)
    observer_fixture.links.publication_changed()
    assert observer_fixture.enqueued == ["web", "web"]
