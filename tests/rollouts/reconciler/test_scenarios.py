"""Single cases of the whole controller with a real store, a fake engine and gateway, and virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from services.engine.port import EngineError
from services.rollouts.reconciler.service_state import CRASH_WINDOW
from services.rollouts.requests import commands
from services.routing.port import RoutedService, RoutingError
from services.store.tables import Deployment, Event, Instance
from tests.support.controller_simulation import SERVICE, ControllerSimulation
from tests.support.controller_stories import RunScenario, deployment, messages, until
from tests.support.fakes.engine import Behaviour


async def _aborted_before_it_was_ready(simulation: ControllerSimulation, **fields: Any) -> list[str]:
    simulation.engine.behave("web:never", Behaviour(stop_takes=None))
    id = await simulation.deploy("web:never", stop_grace_period=120, **fields)
    await until(simulation, id, "progressing")
    await asyncio.sleep(2)
    await simulation.apply_action(id or 0, "abort")
    await until(simulation, id)
    return [reported for reported in messages(simulation, "instance_stopping") if "killed" in reported]


def test_instance_that_never_served_is_stopped_with_shorter_grace(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        (reported,) = await _aborted_before_it_was_ready(simulation, port=8000)
        assert reported.endswith("still running after 10 s (the grace period of an instance that never served): killed")

    run_scenario(scenario)


def test_unready_worker_keeps_its_whole_stop_grace_period(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        (reported,) = await _aborted_before_it_was_ready(simulation, port=None)
        assert "120 s (stop_grace_period)" in reported

    run_scenario(scenario)


def test_log_tail_is_stored_when_failure_is_recorded(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        simulation.engine.fail_next("remove", EngineError("busy", transient=True))
        id = await simulation.deploy("web:dies", replicas=2, failure_action="pause")
        await until(simulation, id, "paused")
        (failed,) = [row for row in simulation.rows(Instance) if row.failed_deployment == id]
        assert (failed.log_tail, failed.stopped_at) == ("no such file\n", None)

    run_scenario(scenario)


def test_death_without_exit_code_is_recorded_once(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=2))
        simulation.gateway.fail_next("remove", "still attached", times=5)
        simulation.engine.kill(simulation.engine.running[0], None, stays_down=True)
        await simulation.settle()
        assert messages(simulation, "instance_exited") == ["web-r1-1 exited"]

    run_scenario(scenario)


def test_port_in_use_fails_deployment_at_once(run_scenario: RunScenario, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        async def taken(_: RoutedService) -> None:
            raise RoutingError("10.203.0.1:20001 is in use on this machine", lasting=True)

        monkeypatch.setattr(simulation.gateway, "publish", taken)
        id = await simulation.deploy("web:1", port=8000)
        row = await until(simulation, id, "failed", within=10)
        assert (row.reason, "in use on this machine" in row.message) == ("gateway_unverified", True)

    run_scenario(scenario)


def test_superseding_deployment_keeps_size_of_superseded_scale(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=1))
        scale = await simulation.submit(commands.scale(SERVICE, 3))
        await until(simulation, scale, "progressing")
        restart = await simulation.submit(commands.restart(SERVICE))
        image = await simulation.deploy("web:slow")
        await until(simulation, image, "progressing")
        last = await simulation.deploy("web:2")
        await until(simulation, last)
        assert [deployment(simulation, id).status for id in (scale, restart, image, last)] == [
            *["superseded"] * 3,
            "succeeded",
        ]
        assert deployment(simulation, last).replicas == 3

    run_scenario(scenario)


def test_deployment_after_aborted_scale_keeps_previous_size(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=1))
        scale = await simulation.submit(commands.scale(SERVICE, 3))
        await simulation.apply_action(scale or 0, "abort")
        last = await simulation.deploy("web:2")
        assert (await until(simulation, last)).replicas == 1

    run_scenario(scenario)


async def _dies(simulation: ControllerSimulation) -> tuple[float, float]:
    """Kill the only instance for good; return the times of its death and of its replacement's creation."""
    (victim,) = simulation.engine.running
    before, at = len(messages(simulation, "instance_creating")), simulation.clock.now()
    simulation.engine.kill(victim, stays_down=True)
    while len(messages(simulation, "instance_creating")) == before or not simulation.engine.running:  # noqa: ASYNC110 - time jumps
        await asyncio.sleep(0.1)
    return at, max(event.at for event in simulation.rows(Event) if event.type == "instance_creating")


def _warnings(simulation: ControllerSimulation) -> list[str]:
    return [each["code"] for each in simulation.live.warnings(SERVICE)]


def test_crash_loop_and_its_backoff_survive_restart_of_sluice(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=1))
        for _ in range(6):
            await _dies(simulation)
        assert _warnings(simulation) == ["crash_looping"]
        simulation.crash_after(0)
        await asyncio.sleep(2)
        assert (simulation.crashes, _warnings(simulation)) == (1, ["crash_looping"])
        seventh, made = await _dies(simulation)
        assert 32 <= made - seventh < 33
        await asyncio.sleep(CRASH_WINDOW + 60)
        assert _warnings(simulation) == []

    run_scenario(scenario)


def test_requests_wait_for_replacement_only_if_it_starts_in_time(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", port=8000, replicas=1, queue_timeout=10))
        for _ in range(6):
            await _dies(simulation)
        (victim,) = simulation.engine.running
        timeouts = [simulation.gateway.services[SERVICE].queue_timeout]
        died = simulation.clock.now()
        simulation.engine.kill(victim, stays_down=True)
        for _ in range(33):
            await asyncio.sleep(1)
            timeouts.append(simulation.gateway.services[SERVICE].queue_timeout)
        assert simulation.clock.now() - died == pytest.approx(33, abs=1)
        assert timeouts == [10] + [0] * timeouts.count(0) + [10] * (33 - timeouts.count(0))
        assert timeouts.count(0) in (21, 22)

    run_scenario(scenario)


def test_engine_restart_loop_is_known_after_restart_of_sluice(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=1))
        for _ in range(3):
            simulation.engine.kill(simulation.engine.running[0])
            await asyncio.sleep(5)
        simulation.crash_after(0)
        await asyncio.sleep(2)
        assert (simulation.crashes, _warnings(simulation)) == (1, ["crash_looping"])

    run_scenario(scenario)


def test_reconcile_worker_of_unknown_service_ends(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        simulation.runner.enqueue("ghost")
        assert simulation.runner.services() == ["ghost"]
        await asyncio.sleep(1)
        assert simulation.runner.services() == []
        id = await simulation.deploy("web:1")
        await until(simulation, id, "succeeded")  # the controller continues for known services
        assert simulation.runner.services() == [SERVICE]

    run_scenario(scenario)


def test_worker_of_deployment_leased_by_newer_process_ends(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        id = await simulation.deploy("web:never", replicas=1)
        await until(simulation, id, "progressing")
        await asyncio.sleep(5)
        worker = simulation.runner._states[SERVICE].worker
        assert worker is not None and not worker.done()
        with simulation.store.write_session() as session:
            session.get_one(Deployment, id).run += 1
        before = deployment(simulation, id), simulation.rows(Instance), simulation.rows(Event)
        containers, calls = dict(simulation.engine.containers), list(simulation.gateway.calls)
        simulation.runner.enqueue(SERVICE)
        await asyncio.sleep(1)
        assert worker.done()
        await asyncio.sleep(60)  # the deployment would have failed after `start_period`, 20 seconds
        assert (deployment(simulation, id), simulation.rows(Instance), simulation.rows(Event)) == before
        assert simulation.engine.containers == containers
        assert {call for call, _ in simulation.gateway.calls[len(calls) :]} <= {"observe", "observe_all"}

    run_scenario(scenario)


def test_pending_deployment_leased_by_newer_process_is_not_activated(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        first = await simulation.deploy("web:slow")
        second = await simulation.deploy("web:2", on_conflict="queue")
        with simulation.store.write_session() as session:
            session.get_one(Deployment, second).run = 99
        await until(simulation, first, "succeeded")
        await asyncio.sleep(60)
        assert deployment(simulation, second).status == "pending"

    run_scenario(scenario)


def _unfit(simulation: ControllerSimulation) -> RoutedService:
    """Let the gateway keep another configuration of the service at the next start of Sluice; return it.

    The service's current configuration then conflicts with other services.
    """
    other = replace(simulation.gateway.services[SERVICE], request_timeout=7)
    simulation.gateway.unfit = {SERVICE: other}
    return other


async def _crash(simulation: ControllerSimulation) -> None:
    simulation.crash_after(0)
    await asyncio.sleep(2)
    simulation.gateway.unfit = {}


def test_service_unfit_at_start_is_published_as_soon_as_possible(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=1))
        right, other = simulation.gateway.services[SERVICE], _unfit(simulation)
        simulation.gateway.fail_next("publish", times=100_000)
        await _crash(simulation)
        assert simulation.gateway.services[SERVICE] == other
        simulation.gateway._failures.clear()
        await asyncio.sleep(30)
        assert simulation.gateway.services[SERVICE] == right

    run_scenario(scenario)


def test_service_that_cannot_be_published_can_be_removed(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=1))
        _unfit(simulation)
        simulation.gateway.fail_next("publish", times=100_000)
        await _crash(simulation)
        removal = await simulation.submit(commands.remove(SERVICE))
        assert (await until(simulation, removal)).status == "succeeded"
        assert simulation.gateway.services == {}

    run_scenario(scenario)
