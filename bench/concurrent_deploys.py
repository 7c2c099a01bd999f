"""Duration of many concurrent deployments beside many event streams and steady reads; all must end.

    python -m bench.concurrent_deploys --fake     # a fake engine and gateway: Sluice alone
    python -m bench.concurrent_deploys            # on real parts, which compete for the processor

The bar: all deployments succeed, every stream reports every end, reads take at most 50 ms (p99).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from bench.report import save, table
from services.loadtest.http1_client import Connection, ConnectionBroken, request
from services.loadtest.request_log import percentile
from services.rollouts.state.status import TERMINAL
from tests.support.docker_cli import gateway, hello
from tests.support.sluice_process import SluiceProcess, hello_spec

TICK = 0.01
WAIT_TIMEOUT = 900.0
PACE = 0.01
"""Seconds between two wake-ups of the bench's clock; their lateness is the error that the bench adds."""


class Fake(SluiceProcess):
    """Sluice process on tests/support/fakes, with nothing on the engine."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.support.serve_with_fakes"]

    def remove(self) -> None:
        if self.running:
            self.kill()


class Readers:
    """Readers of the API at a fixed rate, independent of how fast the answers come.

    `seconds` by route; `failed`: answers other than 200.
    """

    def __init__(self, sluice: SluiceProcess, services: list[str], rate: float) -> None:
        self._sluice = sluice
        self._services = services
        self._rate = rate
        self._random = random.Random(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._token = sluice.token
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.failed: list[str] = []
        self.own: list[float] = []

    async def read(self) -> None:
        """Send reads until cancelled."""
        began, started = time.monotonic(), 0
        watch = asyncio.create_task(self._watch())
        try:
            while True:
                while started < (time.monotonic() - began) * self._rate:
                    started += 1
                    task = asyncio.create_task(self._once(*self._any()))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                await asyncio.sleep(TICK)
        finally:
            watch.cancel()
            await asyncio.gather(*self._tasks)

    def _any(self) -> tuple[str, str]:
        """Return a random route's name, and a path of it."""
        service, number = self._random.choice(self._services), self._random.randint(1, len(self._services))
        return self._random.choice(
            [
                ("/services", "/services"),
                ("/services/{name}", f"/services/{service}"),
                ("/deployments", "/deployments"),
                ("/deployments/{id}", f"/deployments/{number}"),
                ("/deployments/{id}/events", f"/deployments/{number}/events"),
                ("/instances?service=", f"/instances?service={service}"),
                ("/events", "/events"),
            ]
        )

    async def _once(self, route: str, path: str) -> None:
        host = f"127.0.0.1:{self._sluice.port}"
        began = time.monotonic()
        try:
            connection = await Connection.open("127.0.0.1", self._sluice.port)
            answer = await connection.send(request("GET", host, path, close=True, Authorization=f"Bearer {self._token}"))
        except (ConnectionBroken, OSError) as error:
            self.failed.append(f"{path}: {error}")
            return
        self.seconds[route].append(time.monotonic() - began)
        if answer.status != 200:
            self.failed.append(f"{path}: {answer.status}")

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(PACE)
            self.own.append(time.monotonic() - before - PACE)


async def stream(http: httpx.AsyncClient, all_of: int) -> bool:
    """Read one stream of all new events; return whether it reported the end of `all_of` deployments."""
    ended = 0
    async with http.stream("GET", "/events", headers={"Accept": "text/event-stream"}, timeout=WAIT_TIMEOUT) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("event: ") and line[7:] in TERMINAL:
                ended += 1
            if ended == all_of:
                return True
    return False


async def end_of(http: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, float]:
    """Deploy, and return the final status and the seconds it took."""
    began = time.monotonic()
    made = (await http.post("/deployments", json=body)).json()
    while True:
        answer = await http.get(f"/deployments/{made['id']}", params={"wait": 60})
        if answer.json().get("finished_at"):
            return str(answer.json()["status"]), time.monotonic() - began


async def crowd(sluice: SluiceProcess, bodies: list[dict[str, Any]], given: argparse.Namespace) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=sluice.url, headers=_headers(sluice), limits=limits, timeout=WAIT_TIMEOUT) as http:
        listening = [asyncio.create_task(stream(http, len(bodies))) for _ in range(given.streams)]
        await _until_open(http, given.streams)
        readers = Readers(sluice, [body["service"] for body in bodies], given.rate)
        reading = asyncio.create_task(readers.read())
        began = time.monotonic()
        before = processor(sluice.pid)
        async with asyncio.timeout(WAIT_TIMEOUT):
            ends = await asyncio.gather(*(end_of(http, body) for body in bodies))
            seconds = time.monotonic() - began
            told = sum(await asyncio.gather(*listening))
        used = processor(sluice.pid) - before
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return {
        "ended": sorted({status for status, _ in ends}),
        "seconds": round(seconds, 1),
        "first_and_last_end": [round(limit(took for _, took in ends), 1) for limit in (min, max)],
        "streams_told_of_all": told,
        "sluice_processor_share": round(used / seconds, 2),
        "load_average": round(os.getloadavg()[0], 1),
        "own_lateness_p99_ms": _ms(readers.own, 0.99),
        "reads_failed": readers.failed[:10],
        "reads": {route: _figures(of) for route, of in [*readers.seconds.items(), ("all", _all(readers))]},
    }


async def _until_open(http: httpx.AsyncClient, streams: int) -> None:
    """Wait until all streams are open, so that each will receive every later event."""
    while f"sluice_open_streams {streams:.1f}" not in (await http.get("/metrics")).text:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def _headers(sluice: SluiceProcess) -> dict[str, str]:
    return {"Authorization": f"Bearer {sluice.token}"}


def _all(readers: Readers) -> list[float]:
    return [second for of in readers.seconds.values() for second in of]


def _figures(seconds: list[float]) -> dict[str, float]:
    return {"reads": len(seconds), "p50_ms": _ms(seconds, 0.5), "p99_ms": _ms(seconds, 0.99), "worst_ms": _ms(seconds, 1)}


def _ms(seconds: list[float], share: float) -> float:
    return round(percentile(sorted(seconds), share) * 1000, 1)


def processor(pid: int) -> float:
    """Return the processor time in seconds that the process has used."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _phases(sluice: SluiceProcess, given: argparse.Namespace) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    names = [f"service-{number}" for number in range(1, given.services + 1)]
    if given.fake:
        images = ["hello:1", "hello:2"]
        first = [{"service": name, "image": images[0], "healthcheck": {"disable": True}, "replicas": 1} for name in names]
    else:
        images = [hello("1"), hello("2")]
        first = [hello_spec(sluice, name, images[0], replicas=1) for name in names]
    yield "first deployments", first
    yield "updates", [{"service": name, "image": images[1]} for name in names]


async def run(given: argparse.Namespace) -> int:
    told: dict[str, Any] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = Fake(directory) if given.fake else SluiceProcess(directory, SLUICE_GATEWAY_IMAGE=gateway())
        sluice = stack.enter_context(made)
        for phase, bodies in _phases(sluice, given):
            told[phase] = figures = await crowd(sluice, bodies, given)
            print(phase, json.dumps({name: value for name, value in figures.items() if name != "reads"}, indent=1))
            rows = [[route, *of.values()] for route, of in figures["reads"].items()]
            print(table(["route", "reads", "p50 ms", "p99 ms", "worst ms"], rows), flush=True)
    print("saved to", save("crowd-fake" if given.fake else "crowd", {**vars(given), **told}))
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--rate", type=float, default=50, help="reads per second")
    parser.add_argument("--fake", action="store_true")
    raise SystemExit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
