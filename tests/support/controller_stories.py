"""Stories of the whole controller in virtual time: one simulation for each, and its rows and events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from services.rollouts.state.status import TERMINAL
from services.store.tables import Deployment, Event
from tests.support.controller_simulation import ControllerSimulation

Story = Callable[[ControllerSimulation], Awaitable[Any]]
RunScenario = Callable[[Story], None]


def deployment(simulation: ControllerSimulation, id: int | None) -> Deployment:
    return next(row for row in simulation.rows(Deployment) if row.id == id)


async def until(simulation: ControllerSimulation, id: int | None, *statuses: str, within: float = 200) -> Deployment:
    """Wait until the deployment has one of the statuses (default: a terminal one).

    Raises AssertionError after `within` seconds of virtual time.
    """
    for _ in range(int(within * 10)):
        if (row := deployment(simulation, id)).status in (statuses or TERMINAL):
            return row
        await asyncio.sleep(0.1)
    raise AssertionError(f"{row.status} after {within:g} s: {row.message}")


def messages(simulation: ControllerSimulation, event_type: str) -> list[str]:
    return [event.message for event in simulation.rows(Event) if event.type == event_type]
