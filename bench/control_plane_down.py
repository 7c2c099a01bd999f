"""Sluice down while instances die and restart: requests lost, and the time to recover on its return.

    python -m bench.control_plane_down [--minutes 10]

The engine restarts killed instances. Another one, stopped by `docker kill`, stays down, and another is removed:
neither returns before Sluice does, and HAProxy's own checks must keep requests from them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bench.instance_kill import BenchService
from bench.report import save, table
from tests.support.docker_cli import docker, gateway, hello
from tests.support.sluice_process import SluiceProcess

SERVICES = {"trio": 3, "pair": 2}
PAUSE = 12.0
"""Seconds between two kills: the engine delays the restart of a container that ran for less than ten."""


async def die(sluice: SluiceProcess, instance: str) -> None:
    pid = int(await asyncio.to_thread(docker, "inspect", "--format", "{{.State.Pid}}", f"{sluice.name}-{instance}"))
    if pid:
        os.kill(pid, signal.SIGKILL)


async def away(bench_service: BenchService, seconds: float) -> Counter[str]:
    """Kill instances while Sluice is down, for `seconds`; return how often each action was done."""
    dice, done = random.Random(1), Counter[str]()
    ids = [each["id"] for service in SERVICES for each in await bench_service.serving(service)]
    await asyncio.to_thread(bench_service.sluice.kill)
    ends = time.monotonic() + seconds
    down, gone = ids[0], ids[-1]
    await asyncio.to_thread(docker, "kill", f"{bench_service.sluice.name}-{down}")
    await asyncio.to_thread(docker, "rm", "--force", f"{bench_service.sluice.name}-{gone}")
    done.update({"killed by hand, stays down": 1, "removed by hand": 1})
    dying = [id for id in ids if id not in (down, gone)]
    while time.monotonic() + PAUSE < ends:
        await asyncio.sleep(PAUSE)
        await die(bench_service.sluice, dice.choice(dying))
        done["SIGKILLed, comes back"] += 1
    await asyncio.sleep(max(ends - time.monotonic(), 0))
    return done


async def run(given: argparse.Namespace) -> dict[str, Any]:
    image, rows = hello("1"), []
    with (
        tempfile.TemporaryDirectory() as directory,
        SluiceProcess(Path(directory), SLUICE_GATEWAY_IMAGE=gateway()) as sluice,
    ):
        async with sluice.client() as http:
            bench_service = BenchService(sluice, http, image)
            for service, count in SERVICES.items():
                await bench_service.deploy(service, replicas=count)
            async with (
                bench_service.load("trio", rate=given.rate) as trio,
                bench_service.load("pair", rate=given.rate) as pair,
            ):
                done = await away(bench_service, given.minutes * 60)
                began = time.monotonic()
                await asyncio.to_thread(sluice.start)
                for service, count in SERVICES.items():
                    await bench_service.until_serving(service, count)
                back = time.monotonic() - began
            for name, load in (("trio", trio), ("pair", pair)):
                summary = load.request_log.summary()
                print(name, load.request_log.explain() if load.request_log.failures else "0 lost")
                reads = [entry for entry in load.request_log.failures if entry.kind != "POST"]
                rows.append(
                    [
                        name,
                        summary.requests,
                        len(reads),
                        len(load.request_log.failures) - len(reads),
                        len(load.request_log.twice),
                    ]
                )
    print(json.dumps(done))
    print(table(["service", "requests", "GET lost", "POST lost", "run twice"], rows))
    print(f"all serving {back:.1f} s after Sluice's start")
    return {"minutes": given.minutes, "done": dict(done), "rows": rows, "back_seconds": round(back, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=10, help="requests per second to each of the two services")
    print("saved to", save("away", asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
