"""Single stories of the whole loop, its store real, engine and gateway fakes, in jumping time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.engine.port import EngineError
from services.rollouts.phases import TERMINAL
from services.store.open import DATABASE, open_store
from services.store.tables import Deployment, Instance
from tests.fakes.jumping import run
from tests.rollouts.life import Life

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


def test_the_end_of_the_log_is_there_when_the_failure_is_told(tell: Tell) -> None:
    async def story(life: Life) -> None:
        life.engine.fail_next("remove", EngineError("busy", transient=True))
        id = await life.deploy("web:dies", replicas=2, failure_action="pause")
        await until(life, id, "paused")
        (failed,) = [row for row in life.rows(Instance) if row.failed_deployment == id]
        assert (failed.log_tail, failed.stopped_at) == ("no such file\n", None)

    tell(story)
