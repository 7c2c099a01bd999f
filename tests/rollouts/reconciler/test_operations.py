"""Operations that fail: each is tried again with delays of its own, and none stops a deployment for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.engine.port import EngineError
from services.rollouts.reconciler.linking import LinkedServices
from services.rollouts.reconciler.service_state import ServiceState
from tests.support.controller_simulation import ControllerSimulation
from tests.support.controller_stories import RunScenario, messages, until

ALWAYS = 10**6


def transient() -> EngineError:
    return EngineError("connection reset", transient=True)


def test_operation_that_keeps_failing_is_tried_with_growing_delays(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        simulation.engine.fail_next("start", transient(), times=ALWAYS)
        await simulation.deploy("web:1")
        await asyncio.sleep(30)
        attempts = [call for call, _ in simulation.engine.calls].count("start")
        assert 5 <= attempts <= 12, "0.2, 0.4, 0.8 … seconds, at most 5"

    run_scenario(scenario)


def test_success_of_another_operation_does_not_reset_the_delays() -> None:
    state = ServiceState()
    first = [state.operation_failed("web-r1-1") for _ in range(3)]
    state.operation_succeeded("web-r1-2", routed=True)
    state.retain(["web-r1-1"], ["web-r1-1"])
    assert [*first, state.operation_failed("web-r1-1")] == [0.2, 0.4, 0.8, 1.6]
    state.operation_succeeded("web-r1-1", routed=True)
    assert state.operation_failed("web-r1-1") == 0.2
    state.retain(["web-r1-1"], [])
    assert state.operation_failed("web-r1-1") == 0.2, "the operation was not needed any more"


def test_deployment_ends_though_the_log_of_its_failed_instance_cannot_be_read(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        simulation.engine.fail_next("logs", transient(), times=ALWAYS)
        row = await until(simulation, await simulation.deploy("web:dies"), within=100)
        assert (row.status, row.reason) == ("failed", "unhealthy_instance")
        assert messages(simulation, "instance_stopped") == ["web-r1-1 removed"]
        assert simulation.engine.containers == {}

    run_scenario(scenario)


class SlowReads:
    """A store whose reads end when the test says so, in any order."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[set[str]]] = []

    async def read(self, _work: Any) -> set[str]:
        self.waiting.append(asyncio.get_running_loop().create_future())
        return await self.waiting[-1]


@pytest.mark.anyio
async def test_earlier_read_of_links_does_not_undo_a_later_one(tmp_path: Path) -> None:
    store: Any = SlowReads()
    enqueued = list[str]()
    links = LinkedServices(store, {"api": ServiceState()}, enqueued.append)
    before_the_link, after_it = asyncio.create_task(links.refresh()), asyncio.create_task(links.refresh())
    answers = [set[str](), {"api"}]
    while not (before_the_link.done() and after_it.done()):
        await asyncio.sleep(0)
        for waiting in reversed(store.waiting):  # the later read ends first if it can
            if not waiting.done():
                waiting.set_result(answers[store.waiting.index(waiting)])
    assert (set(links.linked), enqueued) == ({"api"}, ["api"])
