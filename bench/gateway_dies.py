"""The gateway killed under load while Sluice runs: requests lost or refused, and the longest wait.

    python -m bench.gateway_dies [--kills 10]

Its master or its worker is SIGKILLed, its container is killed, or its container is removed. The bars: no request is
refused, and only in-flight requests are lost: those that began before its processes were gone, and those on its idle
connections.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from bench.oracle import cut_while_idle
from bench.report import median, save, table
from services.loadtest.load_generator import LoadGenerator, Workload
from services.loadtest.request_log import RequestRecord
from tests.support.docker_cli import docker, gateway, hello
from tests.support.resource_usage import children, container_pid, lives
from tests.support.sluice_process import SluiceProcess, hello_spec

WAYS = ("SIGKILL of the master", "SIGKILL of the worker", "docker kill", "docker rm --force")
RESTART_BACKOFF_RESET_SECONDS = 10.5
"""Seconds that a gateway runs before its process is killed.

An engine delays the restart of shorter-lived ones ever more.
"""
MIX = Workload(rate=150, fresh=0.5, slow_seconds=0.5)
Row = dict[str, Any]


async def killed(sluice: SluiceProcess, load: LoadGenerator, way: str) -> float:
    """Kill the gateway and return the seconds until another process answers."""
    name = f"{sluice.name}-gateway"
    master = await asyncio.to_thread(container_pid, name)
    assert master is not None
    *_, worker = children(master)
    load.mark("dying")
    began = time.monotonic()
    doing: asyncio.Task[Any] | None = None
    if way.startswith("docker"):
        doing = asyncio.create_task(asyncio.to_thread(docker, *way.split()[1:], name))
    else:
        os.kill(worker if "worker" in way else master, signal.SIGKILL)
    await _until(lambda: not lives(master) and not lives(worker))
    load.mark("away")
    if doing is not None:
        await doing
    async with httpx.AsyncClient(timeout=30) as http:
        await http.get(f"{sluice.gateway}/no-such-service")  # queued behind all requests that arrived before it
    away = time.monotonic() - began
    load.mark("back")
    return away


async def run(sluice: SluiceProcess, image: str, kills: int, told: Callable[[Row], None]) -> list[Row]:
    rows = []
    async with sluice.client() as http:
        body = hello_spec(sluice, "web", image, replicas=2)
        end = (await http.post("/deployments", params={"wait": 60}, json=body)).json()
        assert end.get("status") == "succeeded", end
        for way in WAYS:
            aways = []
            async with LoadGenerator(f"{sluice.gateway}/web", MIX) as load:
                for _ in range(kills):
                    await asyncio.sleep(1 if way.startswith("docker") else RESTART_BACKOFF_RESET_SECONDS)
                    load.mark("serving")
                    await asyncio.sleep(1)  # longer than any request takes: all earlier ones have ended
                    aways.append(await killed(sluice, load, way))
            rows.append({"way": way, "kills": kills, **_row(load, aways)})
            told(rows[-1])
    return rows


def was_in_flight(lost: RequestRecord) -> bool:
    """Return whether a request began before the gateway's processes ended, or used an idle connection.

    Idle means idle when the processes ended. The phase `away` begins at their end, `back` when another process answers.
    """
    if lost.phase == "away":
        return cut_while_idle(lost)
    return lost.phase != "back"


def _row(load: LoadGenerator, aways: list[float]) -> Row:
    request_log = load.request_log
    in_hand = [entry for entry in request_log.failures if was_in_flight(entry)]
    came = [entry for entry in request_log.entries if entry.phase == "away"]
    return {
        "requests": len(request_log.entries),
        "lost in flight": len(in_hand),
        "refused": sum("Connect call failed" in entry.error for entry in request_log.failures),
        "lost otherwise": len(request_log.failures) - len(in_hand),
        "run twice": len(request_log.twice),
        "sent during the outage": len(came),
        "longest wait, ms": round(max((entry.added for entry in came), default=0.0) * 1000),
        "back ms, median": round(median(aways) * 1000),
        "worst": round(max(aways) * 1000),
    }


async def _until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not so():  # noqa: ASYNC110  (polls other processes)
            await asyncio.sleep(0.002)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Kill the gateway under load and count lost requests.")
    parser.add_argument("--kills", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        sluice = stack.enter_context(SluiceProcess(Path(directory), SLUICE_GATEWAY_IMAGE=gateway()))
        rows = asyncio.run(run(sluice, hello("1"), given.kills, lambda row: print(row, flush=True)))
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    save("gateway_dies", {"rows": rows})


if __name__ == "__main__":
    _main()
