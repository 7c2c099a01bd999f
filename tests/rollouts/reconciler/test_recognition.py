"""Containers that users rename, copy or create again: the store's container id decides which one is an instance's."""

from __future__ import annotations

import asyncio

import pytest

from services.rollouts.state.recognition import UnknownContainer, is_recognized
from services.store.tables import Instance
from tests.support.controller_simulation import ControllerSimulation
from tests.support.controller_stories import RunScenario, until

RESYNC = 20.0
"""Seconds within which the controller observes all containers."""


@pytest.mark.parametrize(
    ("stored", "container", "renamed", "expected"),
    [
        ("c1", "c1", False, True),
        ("c1", "c1", True, True),
        ("c1", "c2", False, False),
        (None, "c2", False, True),
        (None, "c2", True, False),
    ],
)
def test_stored_id_decides_and_the_name_only_without_one(
    stored: str | None, container: str, renamed: bool, expected: bool
) -> None:
    assert is_recognized("web-r1-1", container, {"web-r1-1": stored}, renamed=renamed) is expected
    assert not is_recognized("web-r1-1", container, {"web-r1-2": stored}, renamed=renamed)


def test_renamed_container_serves_on_and_is_removed_with_its_instance(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=2))
        simulation.engine.rename("web-r1-1", "debug")
        await asyncio.sleep(RESYNC)
        assert {row.id for row in simulation.rows(Instance) if row.status == "serving"} == {"web-r1-1", "web-r1-2"}
        assert simulation.live.unknown_containers() == []
        await until(simulation, await simulation.deploy("web:2", replicas=2))
        await simulation.settle()
        assert sorted(simulation.engine.containers) == ["web-r2-1", "web-r2-2"]

    run_scenario(scenario)


def test_death_of_a_renamed_container_replaces_its_instance(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=2))
        simulation.engine.rename("web-r1-1", "debug")
        simulation.engine.kill("debug", stays_down=True)
        await simulation.settle()
        serving = {row.id for row in simulation.rows(Instance) if row.status == "serving"}
        assert serving == {"web-r1-2", "web-r1-3"} == set(simulation.engine.running)

    run_scenario(scenario)


def test_copy_is_named_and_neither_stopped_nor_taken_for_the_instance(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=2))
        copy = simulation.engine.copy("web-r1-1", "copy")
        await asyncio.sleep(RESYNC)
        (unknown,) = simulation.live.unknown_containers()
        assert (unknown, unknown.removal) == (UnknownContainer("web-r1-1", "copy"), "docker rm --force copy")
        before = simulation.gateway.present.servers["web-r1-1"].state
        simulation.engine.kill("copy", stays_down=True)
        await asyncio.sleep(5)
        assert simulation.gateway.present.servers["web-r1-1"].state == before == "admitted"
        simulation.engine._run(copy)
        await until(simulation, await simulation.deploy("web:2", replicas=2))
        await simulation.settle()
        assert simulation.engine.running == ["copy", "web-r2-1", "web-r2-2"]
        del simulation.engine.containers["copy"]

    run_scenario(scenario)


def test_container_created_again_by_hand_is_unknown_and_its_instance_is_replaced(run_scenario: RunScenario) -> None:
    async def scenario(simulation: ControllerSimulation) -> None:
        await until(simulation, await simulation.deploy("web:1", replicas=2))
        again = simulation.engine.copy("web-r1-1", "again")
        simulation.engine.vanish("web-r1-1")
        simulation.engine.rename("again", "")
        await simulation.settle()
        assert simulation.live.unknown_containers() == [UnknownContainer("web-r1-1", "web-r1-1")]
        assert sorted(simulation.engine.running) == ["web-r1-1", "web-r1-2", "web-r1-3"]
        assert simulation.engine.containers["web-r1-1"] is again
        serving = {row.id for row in simulation.rows(Instance) if row.status == "serving"}
        assert serving == {"web-r1-2", "web-r1-3"}
        del simulation.engine.containers["web-r1-1"]

    run_scenario(scenario)
