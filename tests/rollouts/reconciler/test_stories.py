"""Single stories of the whole loop, its store real, engine and gateway fakes, in jumping time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.engine.port import EngineError
from services.rollouts.reconciler.service_state import DEATHS_WITHIN
from services.rollouts.state.status import TERMINAL
from services.routing.port import RoutedService, RoutingError
from services.store.open import DATABASE, open_store
from services.store.tables import Deployment, Event, Instance
from tests.support.controller_simulation import CI, SERVICE, Life
from tests.support.fakes.engine import Behaviour
from tests.support.virtual_time import run

Tell = Callable[[Callable[[Life], Awaitable[Any]]], None]


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """Run a story of a life, from its begin to its end."""

    def told(story: Callable[[Life], Awaitable[Any]]) -> None:
        open_store(tmp_path).close()

        async def whole() -> None:
            life = Life(tmp_path / DATABASE)
            await life.begin()
            try:
                await story(life)
                assert not life.wrong, life.wrong
            finally:
                await life.end()

        run(whole)

    return told


def deployment(life: Life, id: int | None) -> Deployment:
    return next(row for row in life.rows(Deployment) if row.id == id)


async def until(life: Life, id: int | None, *statuses: str, within: float = 200) -> Deployment:
    """`within` seconds of the story's own time."""
    for _ in range(int(within * 10)):
        if (row := deployment(life, id)).status in (statuses or TERMINAL):
            return row
        await asyncio.sleep(0.1)
    raise AssertionError(f"{row.status} after {within:g} s: {row.message}")


def messages(life: Life, type: str) -> list[str]:
    return [event.message for event in life.rows(Event) if event.type == type]


async def _aborted_before_it_was_ready(life: Life, **fields: Any) -> list[str]:
    life.engine.behave("web:never", Behaviour(stop_takes=None))
    id = await life.deploy("web:never", stop_grace_period=120, **fields)
    await until(life, id, "progressing")
    await asyncio.sleep(2)
    await life.ask(lambda requests: requests.act(id or 0, "abort", CI.by))
    await until(life, id)
    return [told for told in messages(life, "instance_stopping") if "killed" in told]


def test_one_that_never_served_is_not_waited_for_as_long_as_one_that_did(tell: Tell) -> None:
    async def story(life: Life) -> None:
        (told,) = await _aborted_before_it_was_ready(life, port=8000)
        assert told.endswith("did not end within the grace of one that never served (10 s) and was killed")

    tell(story)


def test_a_worker_may_be_at_work_before_it_is_ready_and_keeps_its_grace(tell: Tell) -> None:
    async def story(life: Life) -> None:
        (told,) = await _aborted_before_it_was_ready(life, port=None)
        assert "(120 s)" in told

    tell(story)


def test_the_end_of_the_log_is_there_when_the_failure_is_told(tell: Tell) -> None:
    async def story(life: Life) -> None:
        life.engine.fail_next("remove", EngineError("busy", transient=True))
        id = await life.deploy("web:dies", replicas=2, failure_action="pause")
        await until(life, id, "paused")
        (failed,) = [row for row in life.rows(Instance) if row.failed_deployment == id]
        assert (failed.log_tail, failed.stopped_at) == ("no such file\n", None)

    tell(story)


def test_a_port_that_somebody_has_is_told_at_once(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(life: Life) -> None:
        async def taken(_: RoutedService) -> None:
            raise RoutingError("10.203.0.1:20001 is in use on this machine", lasting=True)

        monkeypatch.setattr(life.gateway, "publish", taken)
        id = await life.deploy("web:1", port=8000)
        row = await until(life, id, "failed", within=10)
        assert (row.reason, "in use on this machine" in row.message) == ("gateway_unverified", True)

    tell(story)


def test_whoever_takes_over_from_a_scale_goes_on_to_its_size(tell: Tell) -> None:
    async def story(life: Life) -> None:
        await until(life, await life.deploy("web:1", replicas=1))
        scale = await life.ask(lambda requests: requests.scale(SERVICE, 3, CI))
        await until(life, scale, "progressing")
        restart = await life.ask(lambda requests: requests.restart(SERVICE, CI))
        image = await life.deploy("web:slow")
        await until(life, image, "progressing")
        last = await life.deploy("web:2")
        await until(life, last)
        assert [deployment(life, id).status for id in (scale, restart, image, last)] == [*["superseded"] * 3, "succeeded"]
        assert deployment(life, last).replicas == 3

    tell(story)


def test_a_size_that_could_not_be_had_is_not_gone_on_to(tell: Tell) -> None:
    async def story(life: Life) -> None:
        await until(life, await life.deploy("web:1", replicas=1))
        scale = await life.ask(lambda requests: requests.scale(SERVICE, 3, CI))
        await life.ask(lambda requests: requests.act(scale or 0, "abort", CI.by))
        last = await life.deploy("web:2")
        assert (await until(life, last)).replicas == 1

    tell(story)


async def _dies(life: Life) -> tuple[float, float]:
    """The only instance dies and does not come back by itself: when, and when the next one is made."""
    (victim,) = life.engine.running
    before, at = len(messages(life, "instance_creating")), life.clock.now()
    life.engine.kill(victim, stays_down=True)
    while len(messages(life, "instance_creating")) == before or not life.engine.running:  # noqa: ASYNC110 - time jumps
        await asyncio.sleep(0.1)
    return at, max(event.at for event in life.rows(Event) if event.type == "instance_creating")


def _warnings(life: Life) -> list[str]:
    return [each["code"] for each in life.live.warnings.get(SERVICE, [])]


def test_who_keeps_dying_is_known_after_a_restart_of_sluice_and_the_delays_grow_on(tell: Tell) -> None:
    async def story(life: Life) -> None:
        await until(life, await life.deploy("web:1", replicas=1))
        for _ in range(6):
            await _dies(life)
        assert _warnings(life) == ["crash_looping"]
        life.crash_after(0)
        await asyncio.sleep(2)
        assert (life.crashes, _warnings(life)) == (1, ["crash_looping"])
        seventh, made = await _dies(life)
        assert 32 <= made - seventh < 33
        await asyncio.sleep(DEATHS_WITHIN + 60)
        assert _warnings(life) == []

    tell(story)


def test_whom_the_engine_starts_again_and_again_is_known_after_a_restart_of_sluice(tell: Tell) -> None:
    async def story(life: Life) -> None:
        await until(life, await life.deploy("web:1", replicas=1))
        for _ in range(3):
            life.engine.kill(life.engine.running[0])
            await asyncio.sleep(5)
        life.crash_after(0)
        await asyncio.sleep(2)
        assert (life.crashes, _warnings(life)) == (1, ["crash_looping"])

    tell(story)


def test_a_worker_for_a_service_that_the_store_does_not_know_ends(tell: Tell) -> None:
    async def story(life: Life) -> None:
        life.runner.hint("ghost")
        assert life.runner.services() == ["ghost"]
        await asyncio.sleep(1)
        assert life.runner.services() == []
        id = await life.deploy("web:1")
        await until(life, id, "succeeded")  # the loop goes on for those that it knows
        assert life.runner.services() == [SERVICE]

    tell(story)


def _unfit(life: Life) -> RoutedService:
    """What the gateway goes on with when Sluice starts, because the service as it is does not fit beside others."""
    other = replace(life.gateway.services[SERVICE], request_timeout=7)
    life.gateway.unfit = {SERVICE: other}
    return other


async def _crash(life: Life) -> None:
    life.crash_after(0)
    await asyncio.sleep(2)
    life.gateway.unfit = {}


def test_a_service_that_did_not_fit_at_the_start_is_published_as_soon_as_it_can_be(tell: Tell) -> None:
    async def story(life: Life) -> None:
        await until(life, await life.deploy("web:1", replicas=1))
        right, other = life.gateway.services[SERVICE], _unfit(life)
        life.gateway.fail_next("publish", times=100_000)
        await _crash(life)
        assert life.gateway.services[SERVICE] == other
        life.gateway._failures.clear()
        await asyncio.sleep(30)
        assert life.gateway.services[SERVICE] == right

    tell(story)


def test_a_service_that_cannot_be_published_can_be_removed(tell: Tell) -> None:
    async def story(life: Life) -> None:
        await until(life, await life.deploy("web:1", replicas=1))
        _unfit(life)
        life.gateway.fail_next("publish", times=100_000)
        await _crash(life)
        removal = await life.ask(lambda requests: requests.remove(SERVICE, CI))
        assert (await until(life, removal)).status == "succeeded"
        assert life.gateway.services == {}

    tell(story)
