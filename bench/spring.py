"""Spring Boot redeployed behind Spring Cloud Gateway under load, by three registries; and kills.

Each is compared with its floor. Floor and deployment alternate, both under the load, so that other load on the machine
affects both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

from bench.api import Api, UnexpectedResult
from bench.baseline import Baseline
from bench.report import median, save, table
from bench.spring_stack import GATEWAY, SERVICE, Stack, Way, address
from services.loadtest.load_generator import LoadGenerator, Workload
from tests.support.docker_cli import ROOT, docker, gateway
from tests.support.sluice_process import SluiceProcess

STABLE_BAR = 1.25
"""Maximum ratio of deployment to floor."""
STALENESS_BAR = 2.0
"""Seconds that a deployment may take beyond the floor plus the slowest consumer's staleness."""
KILL_BAR = 300.0
"""Milliseconds that a GET may be late when an instance is killed."""
CACHE = 35.0
"""Seconds that Spring's load balancer caches what its Eureka client fetched."""
CALM = 10.0
"""Seconds without a change before a kill: a JVM is slow at first."""
Row = dict[str, Any]


class BenchSpring:
    """A Sluice with a stock Eureka server beside it, and the services of samples/spring."""

    def __init__(self, sluice: SluiceProcess, rate: float) -> None:
        self.sluice = sluice
        self._rate = rate
        self._theirs = f"{sluice.name}-their-eureka"
        self._volume = sluice.volume("orders")

    async def __aenter__(self) -> BenchSpring:
        name = self.sluice.name
        network = ("--network", name, "--env", "SERVER_PORT=8761")
        await asyncio.to_thread(
            docker,
            "run",
            "--detach",
            "--name",
            self._theirs,
            "--label",
            f"sluice.bench={name}",
            *network,
            "sample-discovery:1",
        )
        where = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        ip = await asyncio.to_thread(docker, "inspect", "--format", where, self._theirs)
        self.api = Api(self.sluice.url, self.sluice.token)
        self.stack = Stack(self._volume, f"http://{ip}:8761/eureka/")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.api.http.aclose()
        await asyncio.to_thread(docker, "rm", "--force", "--volumes", self._theirs)

    async def stand(self, way: Way) -> str:
        """Deploy `prod` and Spring Cloud Gateway, and wait until the latter finds the former.

        Returns the URL for requests.
        """
        await self.change(self.stack.gateway(way))
        await self.change(self.stack.service(way, "prod"))
        return await address(self.api)

    async def change(self, body: dict[str, Any]) -> float:
        """Deploy and return the seconds until it has succeeded. Raises Spoilt if it does not."""
        began = time.monotonic()
        ended = await self.api.change("/deployments", body, lambda news: None)
        if ended["status"] != "succeeded":
            raise UnexpectedResult(f"{ended['service']}: {ended['status']}, {ended['reason']}: {ended['message']}")
        return time.monotonic() - began

    @asynccontextmanager
    async def load(self, url: str) -> AsyncIterator[LoadGenerator]:
        async def executions() -> Counter[str]:
            return Counter(await asyncio.to_thread(self.sluice.ledger_of, self._volume, "sample-service:1"))

        async with LoadGenerator(url, Workload(rate=self._rate), executions=executions) as load:
            yield load

    def floor(self) -> Baseline:
        """Return the baseline with the same JVMs, registered like those of Sluice but under another name.

        They fetch nothing from the registry, so that Sluice does not wait for them as consumers.
        """
        where = "{{range .IPAM.Config}}{{.Gateway}}{{end}}"
        registry = f"http://{docker('network', 'inspect', '--format', where, self.sluice.name)}:8761/eureka/"
        told = {"APP_NAME": "floor-service", "EUREKA_URL": registry, "EUREKA_CLIENT_FETCH_REGISTRY": "false"}
        return Baseline(
            "sample-service:1",
            3,
            name=f"{self.sluice.name}-floor",
            port=8080,
            path="/actuator/health",
            environment=told,
        )

    async def serving(self, service: str) -> list[Row]:
        rows = (await self.api.get("/instances", service=service))["items"]
        return [row for row in rows if row["status"] == "serving"]

    @asynccontextmanager
    async def staleness(self) -> AsyncIterator[list[float]]:
        """Record, while the block runs, the age of each Spring Cloud Gateway's registry data in seconds.

        The age includes that of its own cache.
        """
        addresses = {row["address"].partition(":")[0] for row in await self.serving(GATEWAY)}
        seen: list[float] = []

        async def look() -> None:
            while True:
                consumers = (await self.api.get("/registry"))["consumers"]
                seen.extend(one["age"] + CACHE for one in consumers if one["address"] in addresses)
                await asyncio.sleep(0.5)

        looking = asyncio.create_task(look())
        try:
            yield seen
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)


async def redeployments(spring: BenchSpring, way: Way, count: int) -> Row:
    url = await spring.stand(way)
    floors, seconds, beyond, stale = [], [], [], []
    with spring.floor() as floor:
        async with spring.load(url) as load:
            for number in range(count):
                load.mark("floor")
                floors.append((await asyncio.to_thread(floor.round)).total)
                load.mark("deployments")
                async with spring.staleness() as seen:
                    seconds.append(await spring.change(spring.stack.service(way, "prod" if number % 2 else "local")))
                stale.append(max(seen, default=0.0))
                beyond.append(seconds[-1] - floors[-1] - stale[-1])
                print(f"{way} {number + 1}: floor {floors[-1]:.1f} s, deployment {seconds[-1]:.1f} s", flush=True)
    whole, change = load.request_log.summary(), load.request_log.summary("deployments")
    if load.request_log.failures or load.request_log.twice:
        print(load.request_log.explain())
    return {
        "way": way,
        "deployments": count,
        "floor_s": floors,
        "deployment_s": seconds,
        "ratio": median(seconds) / median(floors),
        "staleness_s": stale,
        "beyond_floor_and_staleness_s": beyond,
        "requests": whole.requests,
        "lost": whole.lost,
        "lost_while_deploying": change.lost,
        "run_twice": whole.run_twice,
        "unrecorded": len(load.request_log.unrecorded),
        "p50_ms": change.p50_ms,
        "p99_ms": change.p99_ms,
        "worst_ms": change.worst_ms,
    }


async def kills(spring: BenchSpring, count: int) -> Row:
    """Kill one of three instances `count` times, with the way `stable`.

    A POST that was in flight at the killed instance is answered 502 and never sent again.
    """
    url = await spring.stand("stable")
    async with spring.load(url) as load:
        for _ in range(count):
            load.mark("calm")
            await asyncio.sleep(CALM)
            victim = (await spring.serving(SERVICE))[0]["id"]
            pid = await asyncio.to_thread(docker, "inspect", "--format", "{{.State.Pid}}", f"{spring.sluice.name}-{victim}")
            load.mark("kill")
            os.kill(int(pid), signal.SIGKILL)
            async with asyncio.timeout(300):
                while len(await spring.serving(SERVICE)) == 3:  # noqa: ASYNC110  (polls another process)
                    await asyncio.sleep(0.05)
                while len(await spring.serving(SERVICE)) < 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
    gets = [entry for entry in load.request_log.entries if entry.phase == "kill" and entry.kind != "POST"]
    print(load.request_log.explain())
    return {
        "kills": count,
        "gets": len(gets),
        "gets_lost": sum(entry.lost for entry in gets),
        # without slow GETs: one of 2 s that was in flight at the kill starts again, and is late by its own time
        "worst_get_ms": round(max(entry.added for entry in gets if entry.kind == "GET") * 1000, 1),
        "calm_worst_ms": load.request_log.summary("calm").worst_ms,
        "posts_lost": load.request_log.summary("kill").lost - sum(entry.lost for entry in gets),
        "run_twice": load.request_log.summary("kill").run_twice,
    }


async def run(given: argparse.Namespace) -> int:
    settings = {"SLUICE_GATEWAY_IMAGE": gateway(), "SLUICE_EUREKA_ALIASES": "sample-eureka"}
    with tempfile.TemporaryDirectory() as directory, SluiceProcess(Path(directory), **settings) as sluice:
        async with BenchSpring(sluice, given.rate) as spring:
            rows = [await redeployments(spring, way, given.deployments) for way in given.ways]
            killed = await kills(spring, given.kills) if given.kills else None
    if rows:
        _show(rows)
        print("saved to", save("spring", {"rate": given.rate, "ways": rows}))
    if killed:
        _show([killed])
        print("saved to", save("spring-kills", {"rate": given.rate, **killed}))
    return int(any(_missed(row) for row in rows) or (killed is not None and _missed_kills(killed)))


def _missed(row: Row) -> bool:
    slow = (row["way"] == "stable" and row["ratio"] > STABLE_BAR) or (
        row["way"] == "instances" and median(row["beyond_floor_and_staleness_s"]) > STALENESS_BAR
    )
    return bool(row["lost"] or row["run_twice"] or row["unrecorded"] or slow)


def _missed_kills(row: Row) -> bool:
    return bool(row["gets_lost"] or row["run_twice"] or row["worst_get_ms"] > KILL_BAR)


def _show(rows: list[Row]) -> None:
    medians = ("floor_s", "deployment_s", "staleness_s", "beyond_floor_and_staleness_s")
    shown = [{key: median(value) if key in medians else value for key, value in row.items()} for row in rows]
    print(table(list(shown[0]), [list(row.values()) for row in shown]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=10, help="of each way")
    parser.add_argument("--ways", nargs="*", choices=get_args(Way), default=get_args(Way))
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--rate", type=float, default=60, help="requests per second")
    given = parser.parse_args()
    subprocess.run([ROOT / "scripts" / "images.sh", "spring"], check=True)
    raise SystemExit(asyncio.run(run(given)))


if __name__ == "__main__":
    main()
