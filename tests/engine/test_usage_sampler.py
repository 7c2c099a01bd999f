"""CPU and memory usage of instances: sampled only while requested, once for all readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.engine.port import EngineError, InstanceSpec
from services.engine.usage_sampler import SAMPLE_RETENTION, SAMPLE_TTL, UsageRate, UsageSampler
from tests.support.fakes.clock import FakeClock, idle
from tests.support.fakes.engine import FakeEngine

pytestmark = pytest.mark.anyio
MIB = 1024**2


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def engine(clock: FakeClock) -> AsyncIterator[FakeEngine]:
    engine = FakeEngine(clock, sleep=clock.sleep)
    image = engine.add_image("web:1", pulled=False)
    for n in (1, 2):
        await engine.start(InstanceSpec(f"web-r1-{n}", "web", 1, 1, n, "h", image.id, f"10.0.0.{n + 1}", 8000))
    engine.calls.clear()
    yield engine
    engine.close()
    await idle()


async def test_cpu_usage_is_known_from_the_second_sample_on(engine: FakeEngine, clock: FakeClock) -> None:
    loads = UsageSampler(engine, clock)
    assert await loads.of(["web-r1-1"]) == {"web-r1-1": UsageRate(None, 16 * MIB, None)}
    clock.jump(5)
    (load,) = (await loads.of(["web-r1-1"])).values()
    assert load.cpu == pytest.approx(0.1)


async def test_concurrent_readers_share_one_sample_of_the_requested_instances(engine: FakeEngine, clock: FakeClock) -> None:
    loads = UsageSampler(engine, clock)
    await asyncio.gather(*(loads.of(["web-r1-1"]) for _ in range(20)))
    clock.jump(SAMPLE_TTL / 2)
    await loads.of(["web-r1-1"])
    assert engine.calls == [("usage", "web-r1-1")]


async def test_stopped_instances_and_engine_errors_yield_no_usage(engine: FakeEngine, clock: FakeClock) -> None:
    loads = UsageSampler(engine, clock)
    await engine.stop("web-r1-2", 0)
    engine.fail_next("usage", EngineError("no answer", transient=True))
    assert await loads.of(["web-r1-1", "web-r1-2", "web-r1-9"]) == {}
    clock.jump(SAMPLE_TTL)
    assert (await loads.of(["web-r1-1"])).keys() == {"web-r1-1"}


async def test_cpu_usage_is_unknown_again_after_a_long_pause(engine: FakeEngine, clock: FakeClock) -> None:
    loads = UsageSampler(engine, clock)
    await loads.of(["web-r1-1"])
    clock.jump(SAMPLE_RETENTION)
    assert await loads.of(["web-r1-1"]) == {"web-r1-1": UsageRate(None, 16 * MIB, None)}
