"""The gateway is killed or removed under load: it returns with the right configuration.

Only requests in flight are lost.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path

import docker
import httpx
import pytest

from bench.gateway_dies import was_in_flight
from services.loadtest.load_generator import LoadGenerator, Workload
from services.loadtest.request_log import RequestRecord
from tests.support.docker_fixture import build
from tests.support.service_fixture import Images, ServiceFixture
from tests.support.sluice_process import SluiceProcess

pytestmark = [pytest.mark.docker, pytest.mark.anyio]
Harm = Callable[[ServiceFixture], Coroutine[None, None, None]]
BACK_WITHIN = 10.0
"""Seconds within which the gateway must answer again, with many other tests on two cores."""


async def kill_its_process(service_fixture: ServiceFixture) -> None:
    os.kill((await pids(service_fixture))[0], signal.SIGKILL)


async def kill_its_worker(service_fixture: ServiceFixture) -> None:
    os.kill((await pids(service_fixture))[-1], signal.SIGKILL)


async def kill_its_container(service_fixture: ServiceFixture) -> None:
    await service_fixture.docker("kill", f"{service_fixture.sluice.name}-gateway")


async def remove_it(service_fixture: ServiceFixture) -> None:
    await service_fixture.docker("rm", "--force", f"{service_fixture.sluice.name}-gateway")


async def stop_it(service_fixture: ServiceFixture) -> None:
    await service_fixture.docker("stop", f"{service_fixture.sluice.name}-gateway")


@pytest.mark.parametrize(
    "harm",
    [
        kill_its_process,
        *(
            pytest.param(harm, marks=pytest.mark.full, id=harm.__name__)
            for harm in (kill_its_worker, kill_its_container, remove_it, stop_it)
        ),
    ],
)
async def test_gateway_death_loses_only_requests_in_flight_and_refuses_no_connection(
    isolated_service: ServiceFixture, harm: Harm
) -> None:
    other = ServiceFixture(isolated_service.sluice, isolated_service.http, isolated_service.images)
    await isolated_service.deploy(isolated_service.spec())
    await other.deploy(other.spec())
    async with (
        isolated_service.load(rate=60, slow_seconds=0.5, lossless=False) as load,
        other.load(rate=60, slow_seconds=0.5, lossless=False) as another,
    ):
        await asyncio.sleep(0.5)
        killed_at = {each: max(entry.at + entry.latency for entry in each.request_log.entries) for each in (load, another)}
        away = await harmed(isolated_service, harm, load, another)
        await asyncio.sleep(1)
        assert (await isolated_service.update(image=isolated_service.images.two))["status"] == "succeeded"
        await isolated_service.until(lambda: _ready(isolated_service))
    for each, service_fixture in ((load, isolated_service), (another, other)):
        in_hand = lost_in_hand(each)
        before = [entry for entry in in_hand if entry.phase == "before"]
        assert all(entry.at + entry.latency >= killed_at[each] - 0.5 for entry in before), each.request_log.explain()
        assert each.request_log.twice == [] and each.request_log.unrecorded == []
        assert {entry.answered_by.rpartition("-r")[0] for entry in each.request_log.entries if not entry.lost} == {
            service_fixture.service
        }
    print(json.dumps({"harm": harm.__name__, "away": round(away, 2), **figures(load)}))
    assert away < BACK_WITHIN


@pytest.mark.full
async def test_gateway_restarts_without_sluice(isolated_service: ServiceFixture) -> None:
    await isolated_service.deploy(isolated_service.spec())
    await isolated_service.until(lambda: _is_kept(isolated_service))
    was = await pids(isolated_service)
    isolated_service.sluice.kill()
    await kill_its_process(isolated_service)
    await isolated_service.until(lambda: _gone(was))
    await isolated_service.until(lambda: _answers(isolated_service), within=BACK_WITHIN)


@pytest.mark.full
async def test_gateway_without_takeover_is_left_alone_and_upgraded_without_refusals(images: Images, tmp_path: Path) -> None:
    """Check also that the upgraded gateway restarts after its predecessor has been removed."""
    client = docker.APIClient(version="auto")
    sluice = SluiceProcess(tmp_path)
    older = f"{sluice.name}/gateway:0"
    start = 'exec haproxy -W -db -S /run/gateway/master.sock,mode,600 -f /run/gateway/haproxy.cfg "$@"'
    build(client, f"FROM {images.gateway}\nENTRYPOINT {json.dumps(['sh', '-c', start, 'sh'])}\n", older)
    sluice.settings["SLUICE_GATEWAY_IMAGE"] = older
    try:
        with sluice:
            async with sluice.client() as http:
                service_fixture = ServiceFixture(sluice, http, images)
                await service_fixture.deploy(service_fixture.spec())
                was = await pids(service_fixture)
                await kill_its_process(service_fixture)
                await service_fixture.until(lambda: _gone(was))
                await service_fixture.until(lambda: _answers(service_fixture), within=BACK_WITHIN)
                assert not await _is_kept(service_fixture)
                sluice.settings["SLUICE_GATEWAY_IMAGE"] = images.gateway
                await asyncio.to_thread(sluice.stop)
                await asyncio.to_thread(sluice.start)
                async with service_fixture.load(rate=60, slow_seconds=0.5, lossless=False) as load:
                    assert (await http.post("/gateway/upgrade", json={})).json()["status"] == "upgraded"
                    await service_fixture.until(lambda: _is_kept(service_fixture))
                    for _ in range(2):
                        load.mark("before")
                        await asyncio.sleep(1)
                        await harmed(service_fixture, kill_its_process, load)
                        await asyncio.sleep(1)
                lost_in_hand(load)
    finally:
        client.remove_image(older, force=True)
        client.close()


@pytest.mark.slow
@pytest.mark.full
async def test_gateway_is_restarted_if_it_hangs_and_not_if_it_pauses_briefly(isolated_service: ServiceFixture) -> None:
    await isolated_service.deploy(isolated_service.spec())
    first = await pids(isolated_service)
    for pid in first:
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(4)
    for pid in first:
        os.kill(pid, signal.SIGCONT)
    await isolated_service.until(lambda: _ready(isolated_service), within=BACK_WITHIN)
    assert await pids(isolated_service) == first
    for pid in first:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    async with httpx.AsyncClient(timeout=60) as http:
        assert (await http.get(f"{isolated_service.sluice.gateway}/{isolated_service.service}")).status_code == 200, (
            "who waits is not lost"
        )
    print(json.dumps({"hung": round(time.monotonic() - began, 1)}))
    assert set(await pids(isolated_service)).isdisjoint(first)
    await isolated_service.until(lambda: _ready(isolated_service), within=BACK_WITHIN)


@pytest.mark.full
async def test_gateway_and_its_files_are_restored_if_both_are_removed(isolated_service: ServiceFixture) -> None:
    await isolated_service.deploy(isolated_service.spec())
    await isolated_service.docker("rm", "--force", f"{isolated_service.sluice.name}-gateway")
    for path in (isolated_service.sluice.data / "gateway").iterdir():
        path.unlink(missing_ok=True)
    await isolated_service.until(lambda: _answers(isolated_service), within=BACK_WITHIN)


async def harmed(service_fixture: ServiceFixture, harm: Harm, *loads: LoadGenerator) -> float:
    """Harm the gateway and return the seconds until it answers again.

    Requests that begin after its processes have ended are in phase `away`, later ones in `back`.
    """
    was, began = await pids(service_fixture), time.monotonic()
    for each in loads:
        each.mark("dying")
    harming = asyncio.create_task(harm(service_fixture))
    await service_fixture.until(lambda: _gone(was))
    for each in loads:
        each.mark("away")
    await harming
    await service_fixture.until(lambda: _answers(service_fixture), within=BACK_WITHIN)
    for each in loads:
        each.mark("back")
    return time.monotonic() - began


def lost_in_hand(load: LoadGenerator) -> list[RequestRecord]:
    """Return the lost requests; assert that all were in flight when the gateway died and none was refused."""
    failures = load.request_log.failures
    assert [entry for entry in failures if was_in_flight(entry)] == failures, load.request_log.explain()
    assert not [entry for entry in failures if "Connect call failed" in entry.error], load.request_log.explain()
    return failures


def figures(load: LoadGenerator) -> dict[str, float]:
    away = [entry for entry in load.request_log.entries if entry.phase == "away"]
    worst = max((entry.added for entry in away), default=0.0)
    return {"in hand": len(load.request_log.failures), "asked while away": len(away), "worst": round(worst, 2)}


async def pids(service_fixture: ServiceFixture) -> list[int]:
    """Return the ids of the gateway's processes, the master's first."""
    reported = await service_fixture.docker("top", f"{service_fixture.sluice.name}-gateway", "-o", "pid")
    return sorted(int(word) for word in reported.split() if word.isdigit())


async def _is_kept(service_fixture: ServiceFixture) -> bool:
    """Return whether Sluice has the gateway's public listener open."""
    return await asyncio.to_thread(_has_socket, service_fixture.sluice.pid, service_fixture.sluice.gateway_port)


def _has_socket(pid: int, port: int) -> bool:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # The file was closed in between.
            if str(file.readlink()) in sockets:
                return True
    return False


async def _gone(pids: list[int]) -> bool:
    return not any(str(pid) in os.listdir("/proc") for pid in pids)


async def _answers(service_fixture: ServiceFixture) -> bool:
    async with LoadGenerator(
        f"{service_fixture.sluice.gateway}/{service_fixture.service}", Workload(requests=0, fresh=1), executions=_none
    ) as one:
        return (await one.ask("GET")).status == 200


async def _ready(service_fixture: ServiceFixture) -> bool:
    return (await service_fixture.http.get("/readyz")).status_code == 200


async def _none() -> Counter[str]:
    return Counter()
