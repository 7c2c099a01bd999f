"""The engine exits, is killed or hangs, or the host loses power: all services serve again.

Each request is answered only by an instance of its own service.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from services.loadtest.load_generator import LoadGenerator, Workload
from tests.support.machine import Machine, MachineSluiceProcess
from tests.support.service_fixture import Json, ServiceFixture, unharmed

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.anyio]

BACK_WITHIN = 40.0


@pytest.mark.full
@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGKILL])
async def test_services_serve_again_after_an_engine_restart_without_sluice(
    machine_service: ServiceFixture, machine: Machine, machine_sluice: MachineSluiceProcess, way: signal.Signals
) -> None:
    others = await _three_services(machine_service)
    before = await _addresses(machine_service)
    machine_sluice.kill()
    async with _traffic(machine_service, others) as loads:
        await asyncio.to_thread(machine.end_engine, way)
        await asyncio.to_thread(machine.start_engine)
        took = await _all_serve_again(machine_service, others)
    print(f"serves again {took:.1f} s after the engine answered")
    _answered_by_their_own(loads)
    assert await _addresses(machine_service) == before
    await asyncio.to_thread(machine_sluice.start)
    await _all_well(machine_service, others)


@pytest.mark.full
async def test_services_serve_again_after_a_power_cut_before_sluice_starts(
    machine_service: ServiceFixture, machine: Machine, machine_sluice: MachineSluiceProcess
) -> None:
    others = await _three_services(machine_service)
    before = await _addresses(machine_service)
    running = await machine_service.begin(image=machine_service.images.two)
    await machine_service.reaches(running, lambda now: now["progress"]["ready"] >= 1)
    async with _traffic(machine_service, others) as loads:
        await asyncio.to_thread(machine.power_cut)
        await asyncio.to_thread(machine.power_on)
        took = await _all_serve_again(machine_service, others)
    print(f"serves again {took:.1f} s after the engine answered")
    _answered_by_their_own(loads)
    after = await _addresses(machine_service)
    assert {name: after[name] for name in before.keys() & after.keys()} == {
        name: before[name] for name in before.keys() & after.keys()
    }
    await asyncio.to_thread(machine_sluice.start)
    ended = await _end_of(machine_service, running)
    assert ended["status"] in ("succeeded", "rolled_back"), await machine_service.scenario(ended)
    await _all_well(machine_service, others)


@pytest.mark.parametrize("way", [pytest.param(signal.SIGTERM, marks=pytest.mark.full), signal.SIGKILL])
async def test_deployment_ends_after_the_engine_was_restarted_in_its_middle(
    machine_service: ServiceFixture, machine: Machine, way: signal.Signals
) -> None:
    others = await _three_services(machine_service)
    async with _traffic(machine_service, others) as loads:
        running = await machine_service.begin(image=machine_service.images.two)
        await machine_service.reaches(running, lambda now: now["progress"]["ready"] >= 1)
        await asyncio.to_thread(machine.end_engine, way)
        await _not_ready(machine_service, "engine")
        await asyncio.to_thread(machine.start_engine)
        ended = await _end_of(machine_service, running)
        await _all_serve_again(machine_service, others)
    assert ended["status"] in ("succeeded", "rolled_back"), await machine_service.scenario(ended)
    _answered_by_their_own(loads)
    await _all_well(machine_service, others)


@pytest.mark.full
async def test_hung_engine_delays_a_deployment_and_no_request(machine_service: ServiceFixture, machine: Machine) -> None:
    others = await _three_services(machine_service)
    async with _traffic(machine_service, others) as loads:
        machine.signal_engine(signal.SIGSTOP)
        try:
            running = await machine_service.begin(image=machine_service.images.two)
            until = time.monotonic() + 30
            await _not_ready(machine_service, "engine")
            while time.monotonic() < until:
                began = time.monotonic()
                assert (await machine_service.get(f"/deployments/{running['id']}"))["status"] in ("pending", "progressing")
                assert time.monotonic() - began < 1
                await asyncio.sleep(1)  # The duration of the outage.
        finally:
            machine.signal_engine(signal.SIGCONT)
        ended = await _end_of(machine_service, running)
    assert ended["status"] == "succeeded", await machine_service.scenario(ended)
    for load in loads.values():
        unharmed(load)
    _answered_by_their_own(loads)
    await _all_well(machine_service, others)


async def _three_services(machine_service: ServiceFixture) -> list[str]:
    """Deploy the fixture's service with three instances, and two with one, one of them without keep-alive."""
    others = [f"{machine_service.service}x", f"{machine_service.service}y"]
    await machine_service.deploy(machine_service.spec(replicas=3))
    await machine_service.deploy(machine_service.spec(service=others[0], replicas=1))
    await machine_service.deploy(machine_service.spec(service=others[1], replicas=1, upstream_keepalive=False))
    return others


@asynccontextmanager
async def _traffic(machine_service: ServiceFixture, others: list[str]) -> AsyncIterator[dict[str, LoadGenerator]]:
    """Send traffic to all services for the whole block."""
    names = [machine_service.service, *others]
    loads: dict[str, LoadGenerator] = {}

    async with AsyncExitStack() as stack:
        for name in names:
            loading = machine_service.load(service=name, lossless=False, rate=15, slow=0.02)
            loads[name] = await stack.enter_async_context(loading)
        yield loads


def _answered_by_their_own(loads: dict[str, LoadGenerator]) -> None:
    for name, load in loads.items():
        answered = load.request_log.versions()
        assert answered, name
        assert {instance.rsplit("-r", 1)[0] for instance in answered} == {name}, answered
        assert load.request_log.twice == [], load.request_log.explain()
        assert load.request_log.unrecorded == []


async def _addresses(machine_service: ServiceFixture) -> dict[str, str]:
    """Return the addresses of all running instances by name."""
    names = (await machine_service.docker("ps", "--format", "{{.Names}}", "--filter", "label=sluice.service")).split()
    shown = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    lines = (await machine_service.docker("inspect", "--format", shown, *names)).splitlines()
    return dict(line.removeprefix("/").split() for line in lines)


async def _all_serve_again(machine_service: ServiceFixture, others: list[str]) -> float:
    """Wait until each service answers ten times in a row; return the seconds."""
    began = time.monotonic()
    for name in (machine_service.service, *others):

        async def answers(name: str = name) -> bool:
            async with LoadGenerator(
                f"{machine_service.sluice.gateway}/{name}", Workload(requests=0), executions=_none
            ) as load:
                return all([not (await load.ask("GET")).lost for _ in range(10)])

        await machine_service.until(answers, within=BACK_WITHIN)
    return time.monotonic() - began


async def _none() -> Counter[str]:
    return Counter()


async def _not_ready(machine_service: ServiceFixture, part: str) -> None:
    async def said() -> bool:
        answer = await machine_service.http.get("/readyz")
        return answer.status_code == 503 and not answer.json()[part]["ok"]

    await machine_service.until(said)


async def _end_of(machine_service: ServiceFixture, deployment: Json) -> Json:
    async def ended() -> Json | None:
        now: Json = await machine_service.get(f"/deployments/{deployment['id']}")
        return now if now["finished_at"] else None

    return await machine_service.until(ended, within=120)


async def _all_well(machine_service: ServiceFixture, others: list[str]) -> None:
    """Wait until exactly the desired instances run and serve."""

    async def well() -> bool:
        wanted = {machine_service.service: 3, **dict.fromkeys(others, 1)}
        rows = [await machine_service.get(f"/services/{name}") for name in wanted]
        runs = await _addresses(machine_service)
        everything = (await machine_service.docker("ps", "--all", "--quiet", "--filter", "label=sluice.service")).split()
        ours = [row for row in rows if row["status"] == "serving" and row["serving"] == wanted[row["name"]]]
        return len(ours) == 3 and len(runs) == len(everything) == 5

    try:
        await machine_service.until(well, within=60)
    except TimeoutError:
        listed = await machine_service.docker("ps", "--all", "--format", "{{.Names}} {{.Status}}")
        raise AssertionError(f"{listed}\n{machine_service.sluice.last_words(30)}") from None
