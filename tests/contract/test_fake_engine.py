"""The fake engine has the faults that a test sets, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.engine.port import EngineError, EngineEvent, InstanceSpec
from tests.support.fakes.clock import FakeClock, idle
from tests.support.fakes.engine import Behaviour, FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def engine(clock: FakeClock) -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(clock, sleep=clock.sleep)
    engine.add_image("web:1", pulled=False)
    yield engine
    engine.close()
    await idle()


def spec(engine: FakeEngine, number: int) -> InstanceSpec:
    return InstanceSpec(
        f"web-r1-{number}", "web", 1, 1, number, "h", engine.images["web:1"].id, f"10.0.0.{number + 1}", 8000
    )


async def test_failure_is_raised_once_and_may_follow_the_work(engine: FakeEngine) -> None:
    engine.fail_next("start", EngineError("no memory", reason="no_capacity"))
    with pytest.raises(EngineError, match="no memory"):
        await engine.start(spec(engine, 1))
    assert engine.containers == {}
    engine.fail_next("start", EngineError("no answer", transient=True), done=True)
    with pytest.raises(EngineError, match="no answer"):
        await engine.start(spec(engine, 1))
    assert (await engine.start(spec(engine, 1))).state == "running"
    assert engine.containers["web-r1-1"].starts == 1


async def test_unreachable_engine_fails_all_calls_and_loses_events(engine: FakeEngine) -> None:
    await engine.start(spec(engine, 1))
    events = engine.events()
    assert await anext(events) == EngineEvent("reconnected")
    with engine.unreachable():
        engine.kill("web-r1-1")
        with pytest.raises(EngineError) as refused:
            await engine.observe()
        assert refused.value.transient
    assert await anext(events) == EngineEvent("reconnected")
    assert [view.state for view in await engine.observe()] == ["exited"]
    await events.aclose()


async def test_lost_events_reach_no_listener(engine: FakeEngine) -> None:
    events = engine.events()
    await anext(events)
    engine.lose_events(1)
    await engine.start(spec(engine, 1))
    engine.kill("web-r1-1", 3)
    reported = await anext(events)
    assert (reported.kind, reported.exit_code) == ("die", 3)
    await events.aclose()


async def test_observed_instances_have_no_fixed_order(engine: FakeEngine) -> None:
    for number in range(1, 8):
        await engine.start(spec(engine, number))
    orders = {tuple(view.instance for view in await engine.observe()) for _ in range(10)}
    assert len(orders) > 1


async def test_time_passes_only_when_the_clock_is_moved(engine: FakeEngine, clock: FakeClock) -> None:
    engine.behave("web", Behaviour(stop_takes=None))
    await engine.start(spec(engine, 1))
    stopping = asyncio.create_task(engine.stop("web-r1-1", 30))
    await clock.advance(29.9)
    assert not stopping.done() and engine.running == ["web-r1-1"]
    await clock.advance(0.1)
    stopped = await stopping
    assert stopped is not None and stopped.exit_code == 137


async def test_instance_with_auto_restart_restarts_after_growing_delays(engine: FakeEngine, clock: FakeClock) -> None:
    engine.behave("web", Behaviour(exits_after=(1, 2)))
    await engine.start(spec(engine, 1))
    await engine.enable_auto_restart("web-r1-1")
    await clock.advance(1.05)
    assert [view.state for view in await engine.observe()] == ["running"], "Docker's restarting counts as running"
    assert engine.running == []
    await clock.advance(0.1)
    assert engine.running == ["web-r1-1"]
    await clock.advance(1.1)
    assert engine.running == []
    await clock.advance(0.2)
    assert engine.containers["web-r1-1"].restarts == 2


async def test_engine_restart_restarts_instances_with_auto_restart(engine: FakeEngine) -> None:
    first = await engine.start(spec(engine, 1))
    await engine.start(spec(engine, 2))
    await engine.enable_auto_restart("web-r1-1")
    engine.restart(cleanly=False)
    views = {view.instance: view for view in await engine.observe()}
    assert (views["web-r1-1"].state, views["web-r1-2"].state) == ("running", "exited")
    assert views["web-r1-1"].start_id != first.start_id and views["web-r1-1"].address == first.address


async def test_restart_policy_may_be_removed(engine: FakeEngine) -> None:
    await engine.start(spec(engine, 1))
    engine.forgets_policies = True
    await engine.enable_auto_restart("web-r1-1")
    assert [view.auto_restart for view in await engine.observe()] == [False]


async def test_full_engine_has_no_capacity(engine: FakeEngine) -> None:
    engine.capacity = 1
    await engine.start(spec(engine, 1))
    with pytest.raises(EngineError) as refused:
        await engine.start(spec(engine, 2))
    assert refused.value.reason == "no_capacity" and list(engine.containers) == ["web-r1-1"]
