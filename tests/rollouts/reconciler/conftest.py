"""The fixture of the stories of the whole controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.store.open import DATABASE, open_store
from tests.support.controller_simulation import ControllerSimulation
from tests.support.controller_stories import RunScenario, Story
from tests.support.virtual_time import run


@pytest.fixture
def run_scenario(tmp_path: Path) -> RunScenario:
    """Return a function that runs a story in a simulation of its own, from its start to its end."""

    def told(scenario: Story) -> None:
        open_store(tmp_path).close()

        async def whole() -> None:
            simulation = ControllerSimulation(tmp_path / DATABASE)
            await simulation.begin()
            try:
                await scenario(simulation)
                assert not simulation.wrong, simulation.wrong
            finally:
                await simulation.end()

        run(whole)

    return told
