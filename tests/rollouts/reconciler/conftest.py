"""The fixture of the stories of the whole controller."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.store.open import DATABASE, open_store
from tests.support.controller_simulation import ControllerSimulation
from tests.support.controller_stories import Story, Tell
from tests.support.virtual_time import run


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """Return a function that runs a story in a simulation of its own, from its start to its end."""

    def told(story: Story) -> None:
        open_store(tmp_path).close()

        async def whole() -> None:
            simulation = ControllerSimulation(tmp_path / DATABASE)
            await simulation.begin()
            try:
                await story(simulation)
                assert not simulation.wrong, simulation.wrong
            finally:
                await simulation.end()

        run(whole)

    return told
