"""Many services deployed at the same time, compared with one at a time."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from bench.deployments import deployed
from bench.report import median, save, table
from tests.support.docker_cli import gateway, hello
from tests.support.sluice_process import SluiceProcess, hello_spec


async def at_once(http: httpx.AsyncClient, bodies: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Deploy all in parallel; return the seconds for all, and of each."""
    began = time.monotonic()
    each = await asyncio.gather(*(deployed(http, body) for body in bodies))
    return time.monotonic() - began, each


async def in_turn(http: httpx.AsyncClient, bodies: list[dict[str, Any]]) -> tuple[float, list[float]]:
    began = time.monotonic()
    each = [await deployed(http, body) for body in bodies]
    return time.monotonic() - began, each


async def run(given: argparse.Namespace) -> int:
    images = [hello("1"), hello("2")]
    names = [f"service-{number}" for number in range(1, given.services + 1)]
    with (
        tempfile.TemporaryDirectory() as directory,
        SluiceProcess(Path(directory), SLUICE_GATEWAY_IMAGE=gateway()) as sluice,
    ):
        async with sluice.client() as http:
            first = [hello_spec(sluice, name, images[0], replicas=given.instances) for name in names]
            phases = {"first deployment, at once": await at_once(http, first)}
            for version, image in enumerate([images[1], images[0]] * given.rounds):
                bodies = [{"service": name, "image": image} for name in names]
                way, does = [("at once", at_once), ("one at a time", in_turn)][version % 2]
                phases[f"update {version // 2 + 1}, {way}"] = await does(http, bodies)
    print(
        table(
            [f"{given.services} services × {given.instances}", "all, s", "each, s", "slowest, s"],
            [[name, whole, median(each), max(each)] for name, (whole, each) in phases.items()],
        )
    )
    figures = {name: {"all": whole, "each": each} for name, (whole, each) in phases.items()}
    print("saved to", save("many", {"services": given.services, "instances": given.instances, **figures}))
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=20)
    parser.add_argument("--instances", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2, help="how often both ways are gone")
    raise SystemExit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
