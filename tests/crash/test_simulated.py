"""The controller crashes at every crash point of every scenario and ends in the same state as without a crash."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.rollouts.reconciler.crash_points import POINTS, START
from services.store.open import DATABASE, open_store
from tests.support.crashing_simulation import AWAY, CrashingSimulation
from tests.support.scenarios import KINDS, Kind
from tests.support.virtual_time import run

pytestmark = pytest.mark.slow

Death = Callable[[list[str]], bool]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of an empty database."""
    data = tmp_path_factory.mktemp("empty")
    open_store(data).close()
    return data / DATABASE


def run_simulation(empty: Path, scenario: Callable[[CrashingSimulation], Awaitable[Any]]) -> Any:
    """Run a story in a simulation of its own and return its result."""
    shelf = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shelf) as data:
        path = Path(data) / DATABASE
        shutil.copy(empty, path)

        async def whole() -> Any:
            simulation = CrashingSimulation(path)
            await simulation.begin()
            try:
                return await scenario(simulation)
            finally:
                await simulation.end()

        return run(whole)


async def carry_out(simulation: CrashingSimulation, kind: Kind, *deaths: Death) -> tuple[list[str], float | None]:
    """Run a scenario from its preparation until the service is idle, and check the end.

    Return the crash points that the controller reached, and the seconds after which it began to roll back.
    """
    for image in kind.before:
        await simulation.ended(await simulation.deploy(image, replicas=kind.replicas))
    for row in simulation.living():
        simulation.busy(row.id, kind.busy)
    simulation.been.clear()
    simulation.deaths = list(deaths)
    id = await kind.ask(simulation)
    assert id is not None
    if kind.then is not None:
        await kind.then(simulation, id)
    deployment = await simulation.ended(id)
    been = list(simulation.been)
    turns = simulation.told(id, "progressing", "rolling_back")
    assert simulation.crashes >= min(len(deaths), 2), "it did not come to die there"
    await simulation.rest()
    simulation.check()
    simulation.check_nothing_twice()
    assert deployment.status == kind.ends, f"{deployment.status}: {deployment.message}"
    assert kind.reason in (None, deployment.reason)
    return been, turns[1].at - turns[0].at if len(turns) == 2 else None


def at(place: int) -> Death:
    return lambda been: len(been) == place + 1


@pytest.fixture(scope="module")
def runs_without_crash(empty: Path) -> dict[str, tuple[list[str], float | None]]:
    """For each scenario: the crash points reached and the time of the roll-back, without a crash."""
    return {name: run_simulation(empty, partial(carry_out, kind=kind)) for name, kind in KINDS.items()}


def test_every_crash_point_is_reached_by_some_scenario(runs_without_crash: dict[str, Any]) -> None:
    been = {point for places, _ in runs_without_crash.values() for point in places}
    assert been == set(POINTS) - set(START)


@pytest.mark.parametrize("name", KINDS)
def test_crash_at_one_point_after_another_converges(empty: Path, name: str) -> None:
    died: set[str] = set()

    def somewhere_new(been: list[str]) -> bool:
        """Return True at a crash point at which this simulation has not crashed yet."""
        new = been[-1] not in died
        died.add(been[-1])
        return new

    _die(empty, name, None, "one after the other", *[somewhere_new] * len(POINTS))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", KINDS)
def test_crash_at_every_point_converges(
    empty: Path, runs_without_crash: dict[str, tuple[list[str], float | None]], name: str
) -> None:
    been, turned = runs_without_crash[name]
    for place, point in enumerate(been):
        _die(empty, name, turned, f"{place}: {point}", at(place))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("again", START)
def test_crash_during_recovery_converges(
    empty: Path, runs_without_crash: dict[str, tuple[list[str], float | None]], name: str, again: str
) -> None:
    been, turned = runs_without_crash[name]
    middle = len(been) // 2
    _die(empty, name, turned, f"{been[middle]}, then {again}", at(middle), lambda been: been[-1] == again)


def _die(empty: Path, name: str, turned: float | None, where: str, *deaths: Death) -> None:
    try:
        _, late = run_simulation(empty, lambda simulation: carry_out(simulation, KINDS[name], *deaths))
        if "deadline" in name and late is not None and turned is not None:
            assert turned - 1 <= late <= turned + len(deaths) * AWAY + 1, "the deadline did not hold"
    except (AssertionError, TimeoutError) as error:
        raise AssertionError(f"{name}, dead at {where}: {error!r}") from error
