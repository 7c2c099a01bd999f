"""Instances that served and fail their checks: their status, since when, why, and the service's."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from services.engine.port import EngineError
from services.rollouts.planner.progress import LOST_DRAIN_TIMEOUT
from services.rollouts.reconciler.watcher import ENGINE_RESYNC, ROUTER_POLL
from services.store.tables import Event, Instance
from tests.support.controller_simulation import SERVICE, ControllerSimulation
from tests.support.controller_stories import RunScenario, messages, until

PATH_CHECK: dict[str, Any] = {"healthcheck": {"disable": True}, "port": 8000}
NOTICED = ROUTER_POLL + 0.1
HUNG = "L7TOUT after 2000 ms"


async def served(simulation: ControllerSimulation, replicas: int = 2, **fields: Any) -> None:
    """Deploy instances that the gateway alone judges."""
    body = {**PATH_CHECK, "replicas": replicas, **fields}
    await until(simulation, await simulation.deploy("web:1", **body), "succeeded")


def row_of(simulation: ControllerSimulation, id: str = "web-r1-1") -> Instance:
    return next(row for row in simulation.rows(Instance) if row.id == id)


def gateway_state(simulation: ControllerSimulation, id: str = "web-r1-1") -> str:
    return simulation.gateway.present.servers[id].state


def statuses(simulation: ControllerSimulation) -> list[str]:
    return [row.status for row in simulation.rows(Instance) if row.stopped_at is None]


def test_failed_check_of_the_gateway_is_recorded_within_its_poll_with_the_reason(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation)
        simulation.gateway.make_unhealthy("web-r1-1", check="L7TOUT after 2000 ms")
        began = simulation.clock.now()
        await asyncio.sleep(NOTICED)
        row = row_of(simulation)
        assert (row.status, row.unhealthy_reason) == ("unhealthy", "check failed: L7TOUT after 2000 ms")
        assert began <= (row.unhealthy_since or 0) <= began + NOTICED
        assert statuses(simulation) == ["unhealthy", "serving"]
        assert [warning["code"] for warning in simulation.live.warnings(SERVICE)] == ["unhealthy"]
        (event,) = [event for event in simulation.rows(Event) if event.type == "instance_unhealthy"]
        assert event.data["reason"] == row.unhealthy_reason and event.data["since"] == row.unhealthy_since
        simulation.gateway.make_unhealthy("web-r1-1", healthy=True)
        await asyncio.sleep(NOTICED)
        row = row_of(simulation)
        assert (row.status, row.unhealthy_since, row.unhealthy_reason) == ("serving", None, None)
        assert len(messages(simulation, "instance_recovered")) == 1
        assert simulation.live.warnings(SERVICE) == []

    run_scenario(scenario)


def test_one_query_polls_all_services(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation)
        await asyncio.sleep(40)
        before = len(simulation.gateway.calls)
        await asyncio.sleep(10 * ROUTER_POLL)
        calls = [call for call, _ in simulation.gateway.calls[before:]]
        assert calls.count("observe_all") == 10 and calls.count("observe") <= 1

    run_scenario(scenario)


def test_restart_of_sluice_keeps_since_when_an_instance_is_unhealthy(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation)
        simulation.gateway.make_unhealthy("web-r1-1")
        await asyncio.sleep(NOTICED)
        before = row_of(simulation)
        simulation.crash_after(0)
        await asyncio.sleep(10)
        assert row_of(simulation) == before
        assert gateway_state(simulation) == "admitted"
        assert len(messages(simulation, "instance_unhealthy")) == 1

    run_scenario(scenario)


def test_failed_test_of_a_worker_is_recorded_with_its_masked_output(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        check = {"test": ["CMD", "queue-works"], "start_period": 20}
        environment = {"QUEUE_PASSWORD": "k3sde8fnw"}
        await served(simulation, port=None, healthcheck=check, environment=environment)
        simulation.fail_test("web-r1-1", "no login with\nk3sde8fnw")
        await asyncio.sleep(1)
        row = row_of(simulation)
        assert (row.status, row.unhealthy_reason) == ("unhealthy", "test exited with code 1: no login with ***")
        assert statuses(simulation) == ["unhealthy", "serving"]
        assert (simulation.live.probe("web-r1-1") or {})["error"] == row.unhealthy_reason
        simulation.failing.clear()
        await asyncio.sleep(1)
        assert row_of(simulation).status == "serving"

    run_scenario(scenario)


def test_instance_that_fails_its_own_test_is_withdrawn_and_admitted_again(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation, healthcheck={"test": ["CMD", "true"], "start_period": 20})
        simulation.fail_test("web-r1-1")
        await asyncio.sleep(1)
        assert row_of(simulation).status == "unhealthy"
        assert gateway_state(simulation) == "draining"
        simulation.failing.clear()
        await asyncio.sleep(1)
        assert row_of(simulation).status == "serving"
        assert gateway_state(simulation) == "admitted"

    run_scenario(scenario)


def test_paused_container_is_unhealthy_at_once(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation)
        simulation.engine.pause("web-r1-1")
        await asyncio.sleep(0.5)
        assert (row_of(simulation).status, row_of(simulation).unhealthy_reason) == ("unhealthy", "its container is paused")
        simulation.engine.pause("web-r1-1", paused=False)
        await asyncio.sleep(0.5)
        assert row_of(simulation).status == "serving"

    run_scenario(scenario)


def test_instance_that_waits_for_its_restart_does_not_count_as_serving(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation, replicas=1)
        for _ in range(6):  # the engine doubles its delay with each restart
            simulation.engine.kill("web-r1-1")
            await asyncio.sleep(3.3)
        simulation.engine.kill("web-r1-1")
        await asyncio.sleep(1)
        assert statuses(simulation) == ["starting"]
        calls = len(simulation.gateway.calls)
        await asyncio.sleep(2)
        assert ("admit", "web-r1-1") not in simulation.gateway.calls[calls:], "the start that died is not admitted again"
        await asyncio.sleep(30)
        assert statuses(simulation) == ["serving"]

    run_scenario(scenario)


def test_replacement_of_an_unhealthy_instance_names_its_reason(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation, healthcheck={"disable": True, "start_period": 20})
        simulation.gateway.make_unhealthy("web-r1-1")
        await asyncio.sleep(40)
        (reported,) = messages(simulation, "instance_draining")
        assert reported.startswith("web-r1-1 draining: unhealthy for 2") and reported.endswith(", check failed: L7STS 503")
        assert statuses(simulation) == ["serving", "serving"]

    run_scenario(scenario)


async def hang(simulation: ControllerSimulation, *instances: str) -> float:
    """Let instances hang, and return the time."""
    for id in instances:
        simulation.gateway.make_unhealthy(id, check=HUNG)
    return simulation.clock.now()


async def serving_again(simulation: ControllerSimulation, gone: str) -> float:
    """Wait until the instance is gone and all others serve, and return the time.

    The log of a failed instance is masked in a thread, which virtual time does not wait for.
    """
    for _ in range(1000):
        if row_of(simulation, gone).stopped_at is not None and set(statuses(simulation)) == {"serving"}:
            return simulation.clock.now()
        await asyncio.sleep(0.1)
    raise AssertionError(statuses(simulation))


def test_hung_only_instance_is_replaced_by_a_trial_beside_it(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation, replicas=1, healthcheck={"disable": True, "start_period": 5})
        began = await hang(simulation, "web-r1-1")
        await asyncio.sleep(NOTICED)
        assert statuses(simulation) == ["unhealthy"]
        assert await serving_again(simulation, "web-r1-1") - began < NOTICED + 5 + 1
        assert simulation.engine.busiest == 2
        assert [row.id for row in simulation.rows(Instance) if row.stopped_at is None] == ["web-r1-2"]
        (reported,) = messages(simulation, "instance_draining")
        assert reported.startswith("web-r1-1 draining: unhealthy for ") and reported.endswith(HUNG)

    run_scenario(scenario)


def test_trial_that_is_no_better_leaves_the_instance_and_the_next_waits_longer(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        check = {"test": ["CMD", "true"], "start_period": 5}
        await served(simulation, replicas=1, port=None, healthcheck=check)
        simulation.failing |= {f"web-r1-{number}" for number in range(2, 20)}  # a database is away
        simulation.fail_test("web-r1-1")
        await asyncio.sleep(120)
        trials = [row for row in simulation.rows(Instance) if row.id != "web-r1-1"]
        assert 4 <= len(trials) <= 10
        delays = [later.created_at - sooner.created_at for sooner, later in pairwise(trials)]
        assert delays == sorted(delays) and delays[-1] > 16
        assert row_of(simulation).status == "unhealthy" and row_of(simulation).stopped_at is None
        assert {"unhealthy", "crash_looping"} == {warning["code"] for warning in simulation.live.warnings(SERVICE)}
        assert simulation.engine.busiest == 2
        simulation.failing.clear()
        await asyncio.sleep(100)
        assert statuses(simulation) == ["serving"] and row_of(simulation).status == "serving"

    run_scenario(scenario)


def test_hung_instance_that_must_not_run_twice_is_restarted_in_place_with_backoff(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation, replicas=1, strategy="recreate", healthcheck={"disable": True, "start_period": 5})
        for number in range(1, 5):
            await hang(simulation, f"web-r1-{number}")
            await serving_again(simulation, f"web-r1-{number}")
        assert simulation.engine.busiest == 1
        created = [row.created_at for row in simulation.rows(Instance)]
        delays = [later - sooner for sooner, later in pairwise(created)]
        assert delays[-1] > delays[0] + 1
        assert [warning["code"] for warning in simulation.live.warnings(SERVICE)] == ["crash_looping"]

    run_scenario(scenario)


@pytest.mark.parametrize("address", [None, "10.203.0.77"])
def test_instance_that_lost_its_address_has_failed_and_is_replaced_at_once(
    run_scenario: RunScenario, address: str | None
) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation, replicas=3)
        simulation.gateway.unreachable.add("web-r1-2")
        simulation.busy("web-r1-2", 1000)
        simulation.engine.disconnect("web-r1-2", address)
        await asyncio.sleep(1)
        assert statuses(simulation).count("serving") == 3
        assert "web-r1-2" in simulation.engine.running, "it is connected again until its request has ended"
        simulation._finish("web-r1-2")
        await serving_again(simulation, "web-r1-2")
        assert ("mark_dead", "web-r1-2") in simulation.gateway.calls
        assert statuses(simulation) == ["serving"] * 3
        row = row_of(simulation, "web-r1-2")
        assert (row.status, row.failure_reason, row.stopped_at is not None) == ("failed", "died", True)
        how = f"has {address} in" if address else "was disconnected from"
        assert how in (row.failure or "")
        assert "web-r1-2" not in simulation.engine.running

    run_scenario(scenario)


def test_instance_that_cannot_be_connected_again_is_force_closed(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation, replicas=3)
        simulation.gateway.unreachable.add("web-r1-2")
        simulation.busy("web-r1-2", 1000)
        simulation.engine.fail_next("reconnect", EngineError("Address already in use"), times=1000)
        simulation.engine.disconnect("web-r1-2")
        await asyncio.sleep(LOST_DRAIN_TIMEOUT + 8)
        assert simulation.gateway.cuts == [("web-r1-2", 1)]
        assert "web-r1-2" not in simulation.engine.running

    run_scenario(scenario)


def test_instance_without_address_is_stopped_before_its_replacement_starts_if_both_must_not_run(
    run_scenario: RunScenario,
) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation, replicas=1, strategy="recreate")
        simulation.engine.disconnect("web-r1-1")
        await serving_again(simulation, "web-r1-1")
        assert simulation.engine.busiest == 1

    run_scenario(scenario)


def test_lost_event_of_a_disconnection_is_made_up_for_by_the_resync(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await served(simulation)
        await asyncio.sleep(20)
        simulation.engine.lose_events()
        simulation.engine.disconnect("web-r1-1")
        await asyncio.sleep(ENGINE_RESYNC + 1)
        assert statuses(simulation).count("serving") == 2
        await serving_again(simulation, "web-r1-1")

    run_scenario(scenario)
