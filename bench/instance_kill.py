"""Instances SIGKILLed under load: requests lost, requests delayed, and the time to leave routing.

    python -m bench.instance_kill [--kills 50]

The cases: one instance of three; the only one, with and without upstream keep-alive, beside a second service; and 1,000
requests a second to a service whose instance is dead. The bars: 0 GET lost, no POST run twice, worst added latency 300 ms;
out of routing 20 ms after the engine's own time of the death (median), 100 ms at worst.

The latencies are of requests that take no time of their own. A request of one second that was in flight at the killed
instance must start again: the time already spent is lost inevitably, so these requests have a column of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from bench.report import save, table
from services.gateway.runtime.runtime_api import RuntimeApi
from services.loadtest.load_generator import LoadGenerator, Workload
from services.loadtest.request_log import RequestRecord, percentile
from tests.support.docker_cli import ROOT, build, docker, hello
from tests.support.sluice_process import SluiceProcess, hello_spec

CHECK = {"path": "/healthz", "interval": 0.5}
RESTART_BACKOFF_RESET_SECONDS = 10.5
"""Seconds that an instance runs before it is killed again.

The engine delays the restart of shorter-lived ones ever more, and that delay is not to be measured.
"""
LOOK = 0.002
"""Seconds between two reads of the worker's server list: the resolution of the measured delay."""
Row = dict[str, Any]


class BenchService:
    """A Sluice, its services, and the deaths that the engine reports."""

    def __init__(self, sluice: SluiceProcess, http: httpx.AsyncClient, image: str) -> None:
        self.sluice = sluice
        self.http = http
        self.image = image
        self.deaths: dict[str, float] = {}
        """Container id → the engine's own time of its latest death, seconds since the epoch."""
        self._worker = RuntimeApi(sluice.data / "gateway" / "master.sock")

    async def deploy(self, service: str, **fields: Any) -> None:
        body = hello_spec(self.sluice, service, self.image, healthcheck=CHECK, **fields)
        end = (await self.http.post("/deployments", params={"wait": 60}, json=body)).json()
        assert end.get("status") == "succeeded", end

    async def serving(self, service: str) -> list[Row]:
        found = (await self.http.get("/instances", params={"service": service, "limit": 200})).json()["items"]
        return sorted((each for each in found if each["status"] == "serving"), key=lambda each: str(each["id"]))

    async def until_serving(self, service: str, count: int) -> list[Row]:
        async with asyncio.timeout(90):
            while True:
                found, rows = await self.serving(service), await self._list()
                if len(found) == count and all(self._in(rows, each["id"]) for each in found):
                    return found
                await asyncio.sleep(0.05)

    async def kill(self, service: str, instance: str) -> float:
        """SIGKILL the instance's process.

        Returns the milliseconds from the engine's own time of the death until the gateway sends no more requests to it.
        """
        name = f"{self.sluice.name}-{instance}"
        found = json.loads(await asyncio.to_thread(docker, "inspect", name))[0]
        before = self.deaths.get(found["Id"], 0.0)
        started = datetime.fromisoformat(found["State"]["StartedAt"][:19]).replace(tzinfo=UTC).timestamp()
        await asyncio.sleep(max(started + RESTART_BACKOFF_RESET_SECONDS - time.time(), 0))
        os.kill(found["State"]["Pid"], signal.SIGKILL)
        async with asyncio.timeout(10):
            while self._in(await self._list(), instance):  # noqa: ASYNC110  (polls other processes)
                await asyncio.sleep(LOOK)
            out = time.time()
            while self.deaths.get(found["Id"], 0.0) == before:  # noqa: ASYNC110
                await asyncio.sleep(LOOK)
        return (out - self.deaths[found["Id"]]) * 1000

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Read the engine's events while the block runs."""
        words = ["--filter", "event=die", "--filter", f"label=sluice.name={self.sluice.name}", "--format", "{{json .}}"]
        told = await asyncio.create_subprocess_exec("docker", "events", *words, stdout=asyncio.subprocess.PIPE)
        reading = asyncio.create_task(self._read(told))
        try:
            yield
        finally:
            told.terminate()
            await told.wait()
            await reading

    @asynccontextmanager
    async def load(self, service: str, **workload: Any) -> AsyncIterator[LoadGenerator]:
        volume = self.sluice.volume(f"{service}-orders")

        async def executions() -> Counter[str]:
            return Counter(await asyncio.to_thread(self.sluice.ledger_of, volume, self.image))

        plan = Workload(**{"rate": 100, "slow_seconds": 1.0, **workload})
        async with LoadGenerator(f"{self.sluice.gateway}/{service}", plan, executions=executions) as load:
            yield load

    async def _read(self, told: asyncio.subprocess.Process) -> None:
        assert told.stdout is not None
        async for line in told.stdout:
            event = json.loads(line)
            self.deaths[event["id"]] = event["timeNano"] / 1e9

    async def _list(self) -> list[list[str]]:
        return [line.split() for line in (await self._worker.query("show servers state")).splitlines()]

    def _in(self, rows: list[list[str]], instance: str) -> bool:
        """Return whether its server is neither down nor in any kind of maintenance or drain."""
        return any(row[3] == instance and row[5] != "0" and row[6] == "0" for row in rows if len(row) > 6)


async def one_of_three(bench_service: BenchService, kills: int) -> Row:
    await bench_service.deploy("trio", replicas=3)
    delays: list[float] = []
    async with bench_service.load("trio") as load:
        await load.until(lambda request_log: len(request_log.entries) >= 300)
        load.mark("kills")
        for number in range(kills):
            instances = await bench_service.until_serving("trio", 3)
            delays.append(await bench_service.kill("trio", instances[number % 3]["id"]))
        await bench_service.until_serving("trio", 3)
    return {"case": f"one of three, {kills} kills", **_row(load, "kills"), **_delays(delays)}


async def measure_single_instance(bench_service: BenchService, keepalive: bool, kills: int) -> list[Row]:
    """Kill the only instance of a service repeatedly; also measure a second service beside it."""
    service = "solo-kept" if keepalive else "solo-fresh"
    await bench_service.deploy(service, replicas=1, upstream_keepalive=keepalive)
    delays: list[float] = []
    async with bench_service.load("trio") as beside, bench_service.load(service, posts=0.1) as load:
        await load.until(lambda request_log: len(request_log.entries) >= 200)
        load.mark("kills")
        beside.mark("beside")
        for _ in range(kills):
            delays.append(await bench_service.kill(service, (await bench_service.until_serving(service, 1))[0]["id"]))
        await bench_service.until_serving(service, 1)
    how = "true" if keepalive else "false"
    return [
        {"case": f"the only one, upstream_keepalive {how}, {kills} kills", **_row(load, "kills"), **_delays(delays)},
        {"case": "  a second service beside it", **_row(beside, "beside")},
    ]


async def recreated(bench_service: BenchService, other: str) -> Row:
    await bench_service.deploy("again", replicas=2, strategy="recreate")
    async with bench_service.load("again") as load:
        await load.until(lambda request_log: len(request_log.entries) >= 100)
        load.mark("recreate")
        for image in (other, bench_service.image, other):
            body = {"service": "again", "image": image}
            end = (await bench_service.http.post("/deployments", params={"wait": 60}, json=body)).json()
            assert end.get("status") == "succeeded", end
    return {"case": "recreate, 3 deployments", **_row(load, "recreate")}


async def measure_service_without_instances(bench_service: BenchService) -> list[Row]:
    """Send requests to a service whose instance is dead while Sluice, which would replace it, is dead too."""
    await bench_service.deploy("dead", replicas=1, queue_timeout=60)
    instance = (await bench_service.until_serving("dead", 1))[0]["id"]
    await asyncio.to_thread(bench_service.sluice.kill)
    await asyncio.to_thread(docker, "kill", f"{bench_service.sluice.name}-{instance}")
    async with bench_service.load("trio", rate=50) as beside:
        flood = LoadGenerator(
            f"{bench_service.sluice.gateway}/dead",
            Workload(rate=1000, posts=0, slow=0, seconds=4, in_flight=4000),
            executions=_nothing,
        )
        async with flood:
            beside.mark("beside")
            await asyncio.sleep(3)
            await asyncio.to_thread(bench_service.sluice.start)
            await flood.until(lambda request_log: any(entry.status == 200 for entry in request_log.entries), within=60)
    statuses = Counter(entry.status for entry in flood.request_log.entries)
    return [
        {"case": f"1,000 requests/s at a dead service: {_words(statuses)}", **_row(flood, flood.phase)},
        {"case": "  a second service beside it", **_row(beside, "beside")},
    ]


async def _nothing() -> Counter[str]:
    return Counter()


def _words(statuses: Counter[int | None]) -> str:
    return ", ".join(f"{count} × {status or 'no answer'}" for status, count in statuses.most_common())


def _row(load: LoadGenerator, phase: str) -> Row:
    of = [entry for entry in load.request_log.entries if entry.phase == phase]

    def added(slow: bool) -> list[float]:
        return sorted(entry.added * 1000 for entry in of if not _unanswered(entry) and (entry.own > 0) == slow)

    def lost(post: bool) -> list[RequestRecord]:
        return [entry for entry in of if _unanswered(entry) and (entry.kind == "POST") == post]

    return {
        "requests": len(of),
        "GET lost": len(lost(False)),
        "POST lost": len(lost(True)),
        "run twice": len(load.request_log.twice),
        "p99 ms": round(percentile(added(False), 0.99), 1),
        "worst ms": round(max(added(False), default=0.0), 1),
        "slow worst ms": round(max(added(True), default=0.0), 1),
    }


def _unanswered(entry: RequestRecord) -> bool:
    """Return whether the request failed; one that only waited long is counted in the latencies."""
    return entry.status is None or not 200 <= entry.status < 300


def _delays(delays: list[float]) -> Row:
    ordered = sorted(delays)
    return {"out median ms": round(percentile(ordered, 0.5), 1), "out worst ms": round(ordered[-1], 1)}


async def run(sluice: SluiceProcess, image: str, other: str, kills: int, told: Callable[[Row], None]) -> list[Row]:
    rows: list[Row] = []

    async def keep(work: Awaitable[Row | list[Row]]) -> None:
        found = await work
        for row in found if isinstance(found, list) else [found]:
            rows.append(row)
            told(row)

    async with sluice.client() as http:
        bench_service = BenchService(sluice, http, image)
        async with bench_service.watching():
            await keep(one_of_three(bench_service, kills))
            await keep(measure_single_instance(bench_service, False, max(kills // 5, 2)))
            await keep(measure_single_instance(bench_service, True, max(kills // 5, 2)))
        await keep(recreated(bench_service, other))
        await keep(measure_service_without_instances(bench_service))
    return rows


def _main() -> None:
    parser = argparse.ArgumentParser(description="Kill instances under load and count lost requests.")
    parser.add_argument("--kills", type=int, default=50)
    given = parser.parse_args()
    build("sluice-bench/gateway", ROOT / "services" / "gateway")
    one, two = hello("1"), hello("2")
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        sluice = stack.enter_context(SluiceProcess(Path(directory), SLUICE_GATEWAY_IMAGE="sluice-bench/gateway"))
        rows = asyncio.run(run(sluice, one, two, given.kills, lambda row: print(row, flush=True)))
    head = ["case", "requests", "GET lost", "POST lost", "run twice", "p99 ms", "worst ms", "slow worst ms"]
    head += ["out median ms", "out worst ms"]
    print(table(head, [[row.get(name, "") for name in head] for row in rows]))
    save("kills", {"rows": rows})


if __name__ == "__main__":
    _main()
