"""Random histories of the controller with crashes, engine errors and gateway errors converge."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.engine.port import EngineError
from services.rollouts.requests import commands
from services.store.open import DATABASE, open_store
from services.store.tables import Deployment
from tests.support.controller_simulation import IMAGES, SERVICE, ControllerSimulation
from tests.support.virtual_time import run
from tests.tiers import examples

HISTORIES = examples(40, full=300)
T = TypeVar("T")
KINDS = [
    *["wait"] * 8, *["crash"] * 4, *["deploy"] * 4, "scale", "rollback", "restart", "remove", "abort", "pause", "resume",
    "retry", *["kill"] * 2, "vanish", "lose events", "break the stream", *["engine fails"] * 3, "engine is away",
    "engine restarts", *["gateway fails"] * 3, "gateway is silent", "reload", "gateway restarts", *["busy"] * 3, "sicken",
    "heal", "disconnect", "hang",
]  # fmt: skip
POLICIES: list[dict[str, Any]] = [
    {},
    {"max_surge": 1},
    {"max_surge": 0, "max_unavailable": 1},
    {"strategy": "recreate"},
    {"failure_action": "pause"},
    {"on_conflict": "queue"},
    {"min_ready_seconds": 3},
]
operations = st.tuples(st.sampled_from(KINDS), st.integers(0, 2**20))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of an empty database."""
    data = tmp_path_factory.mktemp("empty")
    open_store(data).close()
    return data / DATABASE


class ChoiceSequence:
    """One number that gives many small choices."""

    def __init__(self, number: int) -> None:
        self.number = number

    def pick(self, options: Sequence[T]) -> T:
        self.number, index = divmod(self.number, len(options))
        return options[index]


async def happen(simulation: ControllerSimulation, kind: str, dice: ChoiceSequence) -> None:
    """Apply one operation of a history."""
    running = sorted(simulation.engine.containers)
    one = dice.pick(running) if running else ""
    newest = max(simulation.rows(Deployment), key=lambda row: row.id or 0, default=None)
    match kind:
        case "wait":
            await asyncio.sleep(dice.pick([0.0, 0.05, 0.5, 2, 5, 15, 40]))
        case "crash":
            simulation.crash_after(dice.pick(range(25)))
            await asyncio.sleep(dice.pick([0.01, 0.3, 2]))
        case "deploy":
            image = dice.pick(list(IMAGES))
            await simulation.deploy(image, replicas=dice.pick([1, 2, 3, 0]), **dice.pick(POLICIES))
        case "scale":
            replicas = dice.pick(range(4))
            await simulation.submit(commands.scale(SERVICE, replicas))
        case "rollback":
            await simulation.submit(commands.rollback(SERVICE, None))
        case "restart":
            await simulation.submit(commands.restart(SERVICE))
        case "remove":
            await simulation.submit(commands.remove(SERVICE))
        case "abort" | "pause" | "resume":
            if newest is not None:
                await simulation.apply_action(newest.id or 0, kind)
        case "retry":
            if newest is not None:
                await simulation.submit(commands.retry(newest))
        case "engine fails":
            call = dice.pick(["start", "stop", "remove", "observe", "enable_auto_restart", "pull", "logs"])
            reason = dice.pick([EngineError("busy", transient=True), EngineError("no memory", reason="no_capacity")])
            simulation.engine.fail_next(call, reason, done=dice.pick([False, True]))  # type: ignore[arg-type]
        case "gateway fails":
            call = dice.pick(["admit", "withdraw", "observe", "publish", "force_close", "remove", "mark_dead", "restore"])
            simulation.gateway.fail_next(call, done=dice.pick([False, True]))  # type: ignore[arg-type]
        case "gateway is silent":
            simulation.silence(dice.pick([0.5, 5, 40]))
        case "engine is away":
            simulation.lose_engine(dice.pick([0.5, 5, 40]))
        case "engine restarts":
            simulation.engine.restart(cleanly=dice.pick([True, False]))
        case "lose events":
            simulation.engine.lose_events(dice.pick([1, 3]))
        case "break the stream":
            simulation.engine.break_stream()
        case "reload":
            simulation.gateway.reload(idle_clients=dice.pick([False, True]))
        case "gateway restarts":
            simulation.gateway.restart()
        case "kill" if one:
            simulation.engine.kill(one, stays_down=dice.pick([False, True]))
        case "disconnect" if one:
            simulation.engine.disconnect(one)
        case "hang" if one:
            simulation.fail_test(one)
        case "vanish" if one:
            simulation.engine.vanish(one)
        case "busy" if one:
            simulation.busy(one, dice.pick([1, 8, 300]))
        case "sicken" | "heal" if one in simulation.gateway.present.servers:
            simulation.gateway.make_unhealthy(one, healthy=kind == "heal")


def run_history(empty: Path, history: Sequence[tuple[str, int]]) -> None:
    """Run a history from the first deployment until the service is idle, and check the end."""
    shelf = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shelf) as data:
        path = Path(data) / DATABASE
        shutil.copy(empty, path)

        async def scenario() -> None:
            simulation = ControllerSimulation(path)
            await simulation.begin()
            try:
                await simulation.deploy("web:1", replicas=2)
                for kind, number in history:
                    await happen(simulation, kind, ChoiceSequence(number))
                await simulation.settle()
                simulation.check()
            finally:
                await simulation.end()

        run(scenario)


histories = st.lists(operations, min_size=12, max_size=40)
quietly: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


@given(history=histories)
@settings(max_examples=5, **quietly)
def test_random_histories_converge(empty: Path, history: list[tuple[str, int]]) -> None:
    run_history(empty, history)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(history=histories)
@settings(max_examples=HISTORIES, **quietly)
def test_many_random_histories_converge(empty: Path, history: list[tuple[str, int]]) -> None:
    run_history(empty, history)
