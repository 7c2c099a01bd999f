"""The registry with 1,000 instances beside the Java server: heartbeats, fetches, memory, deployments."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.deployments import deployed
from bench.report import median, save, spread, table
from tests.support.docker_cli import ROOT, build, docker, gateway, hello
from tests.support.sluice_process import SluiceProcess, free_port, hello_spec

INSTANCES, APPLICATIONS = 1_000, 50
"""Numbers of the instances and applications that heartbeats.lua names."""
BEATS = INSTANCES / 30
"""Heartbeats a second of all instances, each every 30 s."""
HEARTBEATS_BAR, FETCHES_BAR, MEMORY_BAR, DEPLOYMENT_BAR = 3_000, 0.5, 0.25, 1.1
SERVER_CORE, CLIENT_CORE = 0, 1
LISTED_WITHIN = 60.0
"""Timeout in seconds: the Java server's answers are up to 30 s old."""
SCRIPT = ROOT / "bench" / "images" / "wrk" / "heartbeats.lua"
JAR = ROOT / "samples" / "spring" / "discovery" / "target" / "app.jar"
WRK = "sluice-bench/wrk"
GZIP = ["-H", "Accept-Encoding: gzip"]
KINDS = {
    "heartbeats": ["-s", f"/{SCRIPT.name}"],
    "full fetches, JSON": [*GZIP, "-H", "Accept: application/json"],
    "full fetches, XML": [*GZIP, "-H", "Accept: application/xml"],
}


@dataclass(frozen=True)
class Server:
    """A process that answers as a Eureka server on loopback."""

    name: str
    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/eureka/apps"

    @property
    def megabytes(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024

    @property
    def cpu(self) -> float:
        """CPU seconds used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def pin(self) -> None:
        """Pin all its threads, and those that they will start, to the server's core."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), {SERVER_CORE})


@dataclass(frozen=True, slots=True)
class Run:
    """Requests a second, microseconds of the server's CPU a request, and the share of its core used."""

    rate: float
    cpu: float
    busy: float


def ask(server: Server, kind: str, seconds: int, connections: int) -> Run:
    """Run wrk on a core of its own. Raises RuntimeError if any answer was not a 200."""
    words = [
        "run",
        "--rm",
        "--network",
        "host",
        "--cpuset-cpus",
        str(CLIENT_CORE),
        "--volume",
        f"{SCRIPT}:/{SCRIPT.name}:ro",
    ]
    before = server.cpu
    said = docker(*words, WRK, "-t1", f"-c{connections}", f"-d{seconds}s", *KINDS[kind], f"{server.url}/")
    used = server.cpu - before
    found = re.search(r"(\d+) requests in ([\d.]+)s", said)
    if found is None or "Socket errors" in said or "Non-2xx" in said:
        raise RuntimeError(f"{server.name}, {kind}: {said}")
    requests, took = int(found[1]), float(found[2])
    return Run(requests / took, used / requests * 1e6, used / took)


async def fill(server: Server) -> None:
    """Register all instances, and wait until the server lists them all."""
    numbers = iter(range(INSTANCES))
    async with httpx.AsyncClient(timeout=30) as http:

        async def register() -> None:
            for number in numbers:
                app = f"APP{number % APPLICATIONS}"
                answer = await http.post(f"{server.url}/{app}", json={"instance": _instance(app, number)})
                answer.raise_for_status()

        await asyncio.gather(*(register() for _ in range(8)))
    await until_listed(server, INSTANCES)


async def until_listed(server: Server, count: int) -> None:
    """Wait until the server lists `count` instances. Raises TimeoutError."""
    deadline = time.monotonic() + LISTED_WITHIN
    async with httpx.AsyncClient(timeout=30) as http:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                answer = await http.get(f"{server.url}/")
                if answer.is_success and answer.text.count("<instance>") == count:
                    return
            await asyncio.sleep(0.3)
    raise TimeoutError(f"{server.name} does not list {count} instances")


async def beside_deployments(sluice: SluiceProcess, server: Server, rounds: int) -> dict[str, Any]:
    """Measure deployments and reads in alternation with all heartbeats and with none."""
    images = [hello("1"), hello("2")]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    reads: dict[bool, list[float]] = {True: [], False: []}
    async with sluice.client() as http:
        await deployed(http, hello_spec(sluice, "web", images[0], replicas=3))
        for turn in range(2 * rounds):
            beating = turn % 4 in (1, 2)
            async with _beating(server) if beating else contextlib.nullcontext():
                seconds[beating].append(await deployed(http, {"service": "web", "image": images[(turn + 1) % 2]}))
                for _ in range(20):
                    began = time.monotonic()
                    (await http.get("/services")).raise_for_status()
                    reads[beating].append((time.monotonic() - began) * 1000)
    rows = [[name, median(values[False]), median(values[True])] for name, values in (("s", seconds), ("ms", reads))]
    print(table(["deployment, read", "no heartbeats", f"{BEATS:.0f}/s"], rows))
    return {
        "rate": BEATS,
        "deployment_s": {"without": seconds[False], "with": seconds[True]},
        "read_ms": {"without": median(reads[False]), "with": median(reads[True])},
        "ratio": median(seconds[True]) / median(seconds[False]),
        "bar": DEPLOYMENT_BAR,
    }


def compare(ours: Server, java: Server, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per kind of request; the servers alternate, and so does the first one of each pair."""
    rows = []
    for kind in KINDS:
        for server in (ours, java):
            ask(server, kind, given.warm, given.connections)
        runs: dict[str, list[Run]] = {ours.name: [], java.name: []}
        for pair in range(given.pairs):
            for server in (ours, java) if pair % 2 else (java, ours):
                runs[server.name].append(ask(server, kind, given.seconds, given.connections))
        mine, theirs = runs[ours.name], runs[java.name]
        ratios = [our.rate / their.rate for our, their in zip(mine, theirs, strict=True)]
        rows.append(
            {
                "what": kind,
                "sluice": median([run.rate for run in mine]),
                "java": median([run.rate for run in theirs]),
                "ratio": median(ratios),
                "spread": spread(ratios),
                "sluice_cpu_us": median([run.cpu for run in mine]),
                "java_cpu_us": median([run.cpu for run in theirs]),
                "sluice_busy": median([run.busy for run in mine]),
                "java_busy": median([run.busy for run in theirs]),
            }
        )
    return rows


@contextlib.contextmanager
def java_server(directory: Path) -> Iterator[Server]:
    """Run the Spring Eureka server of samples/spring as a process."""
    port = free_port()
    with (directory / "java.log").open("wb") as log:
        command = ["java", "-jar", str(JAR), f"--server.port={port}"]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield Server("java", process.pid, port)
    finally:
        process.terminate()
        process.wait(30)


async def run(given: argparse.Namespace) -> int:
    build(WRK, ROOT / "bench" / "images" / "wrk")
    port = free_port()
    settings = {"SLUICE_GATEWAY_IMAGE": gateway(), "SLUICE_EUREKA_PORT": str(port), "SLUICE_EUREKA_HOST": "127.0.0.1"}
    with tempfile.TemporaryDirectory() as directory, SluiceProcess(Path(directory), **settings) as sluice:
        ours = Server("sluice", sluice.pid, port)
        await until_listed(ours, 0)
        empty = ours.megabytes
        await fill(ours)
        beside = await beside_deployments(sluice, ours, given.rounds)
        with java_server(Path(directory)) as java:
            await until_listed(java, 0)
            java_empty = java.megabytes
            await fill(java)
            for server in (ours, java):
                server.pin()
            rows = compare(ours, java, given)
            memory = {
                "sluice": {"empty": empty, "full": ours.megabytes},
                "java": {"empty": java_empty, "full": java.megabytes},
            }
    head = ["what", "sluice/s", "java/s", "ratio", "spread", "µs CPU", "java µs", "busy", "java busy"]
    print(table(head, [list(row.values()) for row in rows]))
    print(table(["resident MB", "empty", "full"], [[name, *sizes.values()] for name, sizes in memory.items()]))
    bars = {"heartbeats": HEARTBEATS_BAR, "fetches": FETCHES_BAR, "memory": MEMORY_BAR}
    print("saved to", save("registry", {"bars": bars, "rows": rows, "megabytes": memory, "beside": beside}))
    heartbeats, *fetches = rows
    return int(
        heartbeats["sluice"] < HEARTBEATS_BAR
        or any(row["ratio"] < FETCHES_BAR for row in fetches)
        or memory["sluice"]["full"] > MEMORY_BAR * memory["java"]["full"]
        or beside["ratio"] > DEPLOYMENT_BAR
    )


@contextlib.asynccontextmanager
async def _beating(server: Server) -> AsyncIterator[None]:
    """Send heartbeats at the rate of all instances while the block runs, paced by the clock."""
    async with httpx.AsyncClient(timeout=30) as http:

        async def beat() -> None:
            began = time.monotonic()
            number = 0
            while True:
                url = f"{server.url}/APP{number % APPLICATIONS}/host{number % INSTANCES}"
                (await http.put(url, params={"status": "UP"})).raise_for_status()
                number += 1
                await asyncio.sleep(max(0.0, began + number / BEATS - time.monotonic()))

        beats = asyncio.create_task(beat())
        try:
            yield
        finally:
            if beats.done():
                beats.result()  # a finished task has failed: raise its error
            beats.cancel()


def _instance(app: str, number: int) -> dict[str, Any]:
    """Return a registration as Spring's clients send it, with a lease that outlasts the measurement."""
    host, port = f"host{number}", 8080
    return {
        "instanceId": host,
        "hostName": host,
        "app": app,
        "ipAddr": f"10.0.{number // 250}.{number % 250}",
        "status": "UP",
        "port": {"$": port, "@enabled": "true"},
        "securePort": {"$": 443, "@enabled": "false"},
        "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
        "leaseInfo": {"renewalIntervalInSecs": 30, "durationInSecs": 3600},
        "metadata": {"management.port": str(port)},
        "homePageUrl": f"http://{host}:{port}/",
        "statusPageUrl": f"http://{host}:{port}/actuator/info",
        "healthCheckUrl": f"http://{host}:{port}/actuator/health",
        "vipAddress": app.lower(),
        "secureVipAddress": app.lower(),
        "lastDirtyTimestamp": "1",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of one run")
    parser.add_argument("--warm", type=int, default=6, help="warm-up seconds for the JVM's compiler")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=4, help="pairs of deployments with heartbeats and without")
    given = parser.parse_args()
    subprocess.run([ROOT / "scripts" / "spring-jars.sh"], check=True)
    raise SystemExit(asyncio.run(run(given)))


if __name__ == "__main__":
    main()
