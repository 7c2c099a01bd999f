"""Deployments of 3 instances: against the floor without load, then 100 and more under a mixed load."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from bench.baseline import Baseline
from bench.report import median, save, spread, table
from services.loadtest.load_generator import LoadGenerator, Workload
from tests.support.docker_cli import gateway, hello
from tests.support.sluice_process import SluiceProcess, hello_spec

MAX_RATIO = 1.25
SERVICE = "web"


async def deployed(http: httpx.AsyncClient, body: dict[str, Any]) -> float:
    """Deploy and return the seconds from request to end. Raises RuntimeError if it did not succeed."""
    began = time.monotonic()
    answer = await http.post("/deployments", params={"wait": 120}, json=body)
    if answer.status_code != 200:
        raise RuntimeError(f"{answer.status_code}: {answer.text}")
    return time.monotonic() - began


async def measure_against_engine_baseline(
    sluice: SluiceProcess, images: list[str], rounds: int, instances: int
) -> dict[str, Any]:
    """Measure floor and deployment in alternation, so that other load on the machine affects both."""
    floors, deployments = [], []
    async with sluice.client() as http:
        with Baseline(images[0], instances) as floor:
            for number in range(rounds):
                image = images[(number + 1) % 2]
                floors.append((await asyncio.to_thread(floor.round, image)).total)
                deployments.append(await deployed(http, {"service": SERVICE, "image": image}))
    ratios = [deployment / floor for deployment, floor in zip(deployments, floors, strict=True)]
    print(
        table(
            ["no load", "median", "spread"],
            [
                ["floor, s", median(floors), spread(floors)],
                ["deployment, s", median(deployments), spread(deployments)],
                ["deployment / floor, by pairs", median(ratios), spread(ratios)],
                ["deployment / floor, of medians", median(deployments) / median(floors), ""],
            ],
        )
    )
    return {
        "floor": floors,
        "deployment": deployments,
        "ratio_of_medians": median(deployments) / median(floors),
        "median_of_ratios": median(ratios),
        "bar": MAX_RATIO,
    }


async def under_load(sluice: SluiceProcess, images: list[str], count: int, rate: float) -> dict[str, Any]:
    volume = sluice.volume(f"{SERVICE}-orders")

    async def executions() -> Counter[str]:
        return Counter(await asyncio.to_thread(sluice.ledger_of, volume, images[0]))

    seconds = []
    async with sluice.client() as http:
        async with LoadGenerator(
            f"{sluice.gateway}/{SERVICE}", Workload(rate=rate), phase="deployments", executions=executions
        ) as load:
            for number in range(count):
                seconds.append(await deployed(http, {"service": SERVICE, "image": images[number % 2]}))
                if (number + 1) % 10 == 0:
                    print(
                        f"{number + 1} deployments, {len(load.request_log.entries)} requests, "
                        f"{len(load.request_log.failures)} lost"
                    )
    whole = load.request_log.summary()
    print(
        table(
            ["deployments", "s each", "requests", "lost", "run twice", "unrecorded", "p50 ms", "p99 ms", "worst ms"],
            [
                [
                    count,
                    median(seconds),
                    whole.requests,
                    whole.lost,
                    whole.run_twice,
                    len(load.request_log.unrecorded),
                    whole.p50_ms,
                    whole.p99_ms,
                    whole.worst_ms,
                ]
            ],
        )
    )
    if load.request_log.failures or load.request_log.twice:
        print(load.request_log.explain())
    return {
        "deployments": count,
        "rate": rate,
        "seconds_each": {"median": median(seconds), "worst": max(seconds)},
        "unrecorded": len(load.request_log.unrecorded),
        **whole.as_dict(),
    }


async def run(given: argparse.Namespace) -> int:
    images = [hello("1"), hello("2")]
    with (
        tempfile.TemporaryDirectory() as directory,
        SluiceProcess(Path(directory), SLUICE_GATEWAY_IMAGE=gateway()) as sluice,
    ):
        async with sluice.client() as http:
            await deployed(http, hello_spec(sluice, SERVICE, images[0], replicas=given.instances))
        floor = await measure_against_engine_baseline(sluice, images, given.rounds, given.instances)
        load = await under_load(sluice, [images[1], images[0]], given.deployments, given.rate)
    print("saved to", save("deployments", {"instances": given.instances, "against_the_floor": floor, "under_load": load}))
    return int(load["lost"] or load["run_twice"] or load["unrecorded"] or floor["ratio_of_medians"] > MAX_RATIO)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=100)
    parser.add_argument("--instances", type=int, default=3)
    parser.add_argument("--rate", type=float, default=200, help="requests per second")
    parser.add_argument("--rounds", type=int, default=11, help="pairs of floor and deployment")
    raise SystemExit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
