"""The gateway killed or removed by hand under load: it comes back, right from its first request, and harms nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from services.loadtest.load import Load, Mix
from tests.e2e.stage import Stage

pytestmark = [pytest.mark.docker, pytest.mark.anyio]
BACK_WITHIN = 10.0
"""Seconds; here, with many others on two cores."""


async def kill_its_process(stage: Stage) -> None:
    pid = await stage.docker("inspect", "--format", "{{.State.Pid}}", f"{stage.sluice.name}-gateway")
    os.kill(int(pid), signal.SIGKILL)
    await stage.until(lambda: _refuses(stage))


async def kill_its_container(stage: Stage) -> None:
    await stage.docker("kill", f"{stage.sluice.name}-gateway")


async def remove_it(stage: Stage) -> None:
    await stage.docker("rm", "--force", f"{stage.sluice.name}-gateway")


async def stop_it(stage: Stage) -> None:
    await stage.docker("stop", f"{stage.sluice.name}-gateway")


@pytest.mark.parametrize("harm", [kill_its_process, kill_its_container, remove_it, stop_it])
async def test_the_gateway_comes_back_and_leads_nobody_astray(own: Stage, harm: Callable[[Stage], Awaitable[None]]) -> None:
    other = Stage(own.sluice, own.http, own.images)
    await own.deploy(own.spec())
    await other.deploy(other.spec())
    async with (
        own.load(rate=60, slow_seconds=0.5, lossless=False) as load,
        other.load(rate=60, slow_seconds=0.5, lossless=False) as another,
    ):
        await asyncio.sleep(0.5)
        began = time.monotonic()
        killed_at = {each: max(entry.at + entry.latency for entry in each.ledger.entries) for each in (load, another)}
        for each in (load, another):
            each.mark("killed")
        await harm(own)
        await own.until(lambda: _answers(own), within=BACK_WITHIN)
        away = time.monotonic() - began
        for each in (load, another):
            each.mark("back")
        await asyncio.sleep(1)
        assert (await own.update(image=own.images.two))["status"] == "succeeded"
        await own.until(lambda: _ready(own))
    for each, stage in ((load, own), (another, other)):
        back = [entry for entry in each.ledger.entries if entry.phase == "back"]
        assert back and not [entry for entry in back if entry.lost], each.ledger.explain()
        before = [entry for entry in each.ledger.failures if entry.phase == "before"]
        assert all(entry.at + entry.latency >= killed_at[each] - 0.5 for entry in before), each.ledger.explain()
        assert each.ledger.twice == [] and each.ledger.unrecorded == []
        assert {entry.answered_by.rpartition("-r")[0] for entry in each.ledger.entries if not entry.lost} == {stage.service}
    print(json.dumps({"harm": harm.__name__, "away": round(away, 2), "lost": len(load.ledger.failures)}))
    assert away < BACK_WITHIN


@pytest.mark.slow
async def test_a_gateway_that_hangs_is_started_anew_and_one_that_only_stumbles_is_not(own: Stage) -> None:
    await own.deploy(own.spec())

    async def pids() -> list[int]:
        titles = (await own.docker("top", f"{own.sluice.name}-gateway", "-o", "pid")).split()
        return [int(word) for word in titles if word.isdigit()]

    first = await pids()
    for pid in first:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(4)
    for pid in first:
        os.kill(pid, signal.SIGCONT)
    await own.until(lambda: _ready(own), within=BACK_WITHIN)
    assert await pids() == first
    for pid in first:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    await own.until(lambda: _answers(own), within=60)
    print(json.dumps({"hung": round(time.monotonic() - began, 1)}))
    assert set(await pids()).isdisjoint(first)
    await own.until(lambda: _ready(own), within=BACK_WITHIN)


async def test_its_files_are_made_again_when_somebody_has_removed_them_with_it(own: Stage) -> None:
    await own.deploy(own.spec())
    await own.docker("rm", "--force", f"{own.sluice.name}-gateway")
    for path in (own.sluice.data / "gateway").iterdir():
        path.unlink(missing_ok=True)
    await own.until(lambda: _answers(own), within=BACK_WITHIN)


async def _answers(stage: Stage) -> bool:
    async with Load(f"{stage.sluice.gateway}/{stage.service}", Mix(requests=0, fresh=1), executions=_none) as one:
        return (await one.ask("GET")).status == 200


async def _refuses(stage: Stage) -> bool:
    return not await _answers(stage)


async def _ready(stage: Stage) -> bool:
    return (await stage.http.get("/readyz")).status_code == 200


async def _none() -> Counter[str]:
    return Counter()
