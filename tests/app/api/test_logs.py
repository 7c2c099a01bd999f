"""Logs of a service's instances: merged, ordered by time, masked, and followed live."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from services.engine.port import EngineError, InstanceSpec
from services.instance_logs import Line, LogFollower, LogSource, read
from services.masking import log_mask
from services.store.events import ChangeNotifier
from tests.support.app_fixture import READY, AppFixture
from tests.support.fakes.clock import FakeClock
from tests.support.fakes.engine import Behaviour, FakeEngine


class LogHarness:
    """Instances that write a log line on demand."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.engine = FakeEngine(self.clock, sleep=self.clock.sleep)
        self.listeners = ChangeNotifier()
        self.sources: list[LogSource] = []

    async def start(self, instance: str, **environment: str) -> None:
        self.engine.add_image(f"{instance}:1")
        image = await self.engine.pull(f"{instance}:1")
        number = len(self.sources) + 1
        await self.engine.start(
            InstanceSpec(
                id=instance, service="web", revision=1, deployment=1, slot=number, hash="h", image_id=image.id,
                address=f"10.99.0.{number}", port=None,
            )
        )  # fmt: skip
        self.sources.append(LogSource(instance, log_mask({"environment": environment})))
        self.listeners.notify()

    def write(self, instance: str, text: str) -> None:
        self.clock.jump(1)
        self.engine.write(instance, text)

    async def look(self) -> Sequence[LogSource]:
        return list(self.sources)

    def following(self, tail: int = 200, *, to_the_end: bool = False) -> LogFollower:
        return LogFollower(self.engine, self.listeners, self.look, tail=tail, since=None, to_the_end=to_the_end)


async def next_ones(following: LogFollower, count: int) -> list[str]:
    """Return the next `count` lines, each as `instance text`."""
    lines: list[Line] = []
    async with asyncio.timeout(10):
        while len(lines) < count:
            lines += await following.next() or []
    return [f"{line.instance} {line.text}" for line in lines]


@pytest.fixture
def harness() -> LogHarness:
    return LogHarness()


@pytest.mark.anyio
async def test_log_lines_of_all_instances_are_ordered_by_time(harness: LogHarness) -> None:
    await harness.start("a")
    await harness.start("b")
    for instance, text in (("a", "one"), ("b", "two"), ("a", "three")):
        harness.write(instance, text)
    lines = await read(harness.engine, [*harness.sources, LogSource("gone", log_mask({}))], tail=200, since=None)
    assert [(line.instance, line.text) for line in lines] == [("a", "one"), ("b", "two"), ("a", "three")]
    assert [line.text for line in await read(harness.engine, harness.sources, tail=1, since=None)] == ["two", "three"]


@pytest.mark.anyio
async def test_log_follower_follows_instances_that_start_later(harness: LogHarness) -> None:
    await harness.start("a")
    harness.write("a", "before")
    async with harness.following() as following:
        assert await next_ones(following, 1) == ["a before"]
        harness.write("a", "live")
        assert await next_ones(following, 1) == ["a live"]
        await harness.start("b")
        harness.write("b", "hello")
        assert await next_ones(following, 1) == ["b hello"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(following.next(), 0.01)


@pytest.mark.anyio
async def test_log_follower_repeats_no_line_of_a_restarted_instance(harness: LogHarness) -> None:
    await harness.start("a")
    async with harness.following() as following:
        harness.write("a", "first life")
        assert await next_ones(following, 1) == ["a first life"]
        harness.engine.behave("a:1", Behaviour(log="second life"))
        await harness.engine.enable_auto_restart("a")
        harness.engine.kill("a")
        harness.listeners.notify()
        await harness.clock.advance(60)
        harness.listeners.notify()
        assert await next_ones(following, 1) == ["a second life"]


@pytest.mark.anyio
async def test_log_follower_with_tail_zero_skips_earlier_lines(harness: LogHarness) -> None:
    await harness.start("a")
    harness.write("a", "before")
    async with harness.following(tail=0) as following:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(following.next(), 0.05)
        harness.write("a", "after")
        assert await next_ones(following, 1) == ["a after"]


@pytest.mark.anyio
async def test_log_follower_of_one_instance_ends_with_the_instance(harness: LogHarness) -> None:
    await harness.start("a", DB_PASSWORD="hunter2-hunter2")
    harness.write("a", "using hunter2-hunter2")
    async with harness.following(to_the_end=True) as following:
        assert await next_ones(following, 1) == ["a using ***"]
        await harness.engine.stop("a", 0)
        async with asyncio.timeout(10):
            assert await following.next() is None


def test_service_logs_name_their_instances_and_mask_secrets(app_fixture: AppFixture) -> None:
    app_fixture.deploy(replicas=2, environment={"API_TOKEN": "hunter2-hunter2"})
    app_fixture.engine.write("web-r1-1", "with hunter2-hunter2")
    app_fixture.engine.write("web-r1-2", "here I am")
    assert app_fixture.client.get("/services/web/logs").text == "web-r1-1 | with ***\nweb-r1-2 | here I am\n"
    assert app_fixture.client.get("/instances/web-r1-1/logs").text == "with ***\n"
    stamped = app_fixture.client.get("/services/web/logs?timestamps=true&tail=1").text.splitlines()
    assert [line.partition("Z ")[2] for line in stamped] == ["web-r1-1 | with ***", "web-r1-2 | here I am"]
    assert app_fixture.client.get("/services/missing/logs").json()["code"] == "unknown_service"
    assert app_fixture.client.get("/services/web/logs?tail=10001").status_code == 422


def test_secret_in_an_engine_error_is_masked_in_the_deployment_and_its_events(app_fixture: AppFixture) -> None:
    app_fixture.engine.fail_next("start", EngineError('exec: "hunter2-hunter2": executable file not found in $PATH'))
    answer = app_fixture.deploy("web", environment={"DB_PASSWORD": "hunter2-hunter2"}, port=80, healthcheck=READY)
    assert answer.status_code == 409
    said = answer.text + app_fixture.client.get("/events?service=web").text
    assert 'exec: \\"***\\"' in said and "hunter2" not in said
