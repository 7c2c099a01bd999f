"""A soak: random changes and failures under a mixed load, with a full check after every action."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from bench.chaos_actions import SERVICES, SOLO, SWAP, TRIO, ChaosActions
from bench.oracle import Creations, Oracle, Traffic
from bench.report import RESULTS, machine, table
from bench.status_oracle import StatusOracle
from services.loadtest.load_generator import LoadGenerator, Workload
from services.loadtest.request_log import RequestRecord
from tests.support.docker_cli import ROOT, build, docker, hello
from tests.support.resource_usage import ResourceUsage, container_pid
from tests.support.sluice_process import SluiceProcess

GATEWAY = "sluice-soak/gateway"
WAIT_TIMEOUT = 120.0
"""Seconds within which all must be well again after an action."""
SHOWN = 10
"""Maximum number of violations of one kind printed after one action; the raw log has all."""
SHARES = {TRIO: 0.5, SOLO: 0.25, SWAP: 0.25}
CHANGES = (
    "deploy",
    "deploy",
    "deploy_broken",
    "configure",
    "scale",
    "roll_back",
    "restart",
    "abort",
    "pause",
    "supersede",
    "guest",
)
BREAKAGE = (
    "kill_instance",
    "kill_instance",
    "hang_instance",
    "disconnect_instance",
    "kill_sluice",
    "stop_sluice",
    "kill_gateway",
)
GENTLE = ("kill_instance", "hang_instance", "disconnect_instance")
"""Failures of the last part: Sluice and its gateway keep running, so that their growth is visible."""


class Log:
    """The raw log: one JSON object a line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._began = time.monotonic()

    def write(self, what: str, **facts: Any) -> None:
        self._file.write(json.dumps({"t": round(time.monotonic() - self._began, 3), "what": what, **facts}) + "\n")

    def say(self, what: str, **facts: Any) -> None:
        self.write(what, **facts)
        self._file.flush()


class Soak:
    """One run. `violations`: what was not as required, with the action before it."""

    def __init__(self, given: argparse.Namespace, sluice: SluiceProcess, log: Log, images: list[str]) -> None:
        self._given = given
        self._sluice = sluice
        self._log = log
        self._images = images
        self._random = random.Random(given.seed)
        self.traffic = Traffic(frozenset({SOLO, SWAP}))
        self.acts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.statuses = StatusOracle(list(SERVICES))
        self.gauges = ResourceUsage(lambda: {"Sluice": sluice.pid, "gateway": container_pid(f"{sluice.name}-gateway")})
        self.seconds = 0.0
        self.deployments: Counter[str] = Counter()
        self.events = 0

    async def run(self) -> None:
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(self._sluice.client())
            acts = ChaosActions(
                self._sluice, http, self.traffic, self._random, self._images, self._log.say, frozenset(self._given.leave_out)
            )
            oracle, creations = Oracle(self._sluice, http), Creations(self._sluice)
            await creations.begin()
            stack.push_async_callback(creations.end)
            await acts.first()
            loads = [await stack.enter_async_context(self._load(name, share)) for name, share in SHARES.items()]
            gauging = asyncio.create_task(self.gauges.watch())
            stack.callback(gauging.cancel)
            watching = asyncio.create_task(self.statuses.watch(http))
            stack.callback(watching.cancel)
            ends = began + self._given.minutes * 60
            gentle_from = ends - self._given.minutes * 60 * self._given.steady
            number = 0
            while time.monotonic() < ends and len(self.violations) < 20:
                number += 1
                try:
                    name, act = self._next(acts, gentle=time.monotonic() >= gentle_from)
                    self.acts[name] += 1
                    self._log.say("act", number=number, name=name)
                    for load in loads:
                        load.mark(f"{number} {name}")
                    await act()
                    going_on = await self._look(f"{number} {name}", acts, oracle, creations)
                except Exception as error:
                    self._violated(f"{number} {name}", [f"{type(error).__name__}: {error}"])
                    going_on = False
                if not going_on:
                    break
                await asyncio.sleep(self._random.uniform(0.3, 2.5))
            self.seconds = time.monotonic() - began
            self.deployments, self.events = oracle.deployments, oracle.events
        self._violated("the end", self.traffic.wrong(self._ledgers()))

    def _next(self, acts: ChaosActions, *, gentle: bool) -> tuple[str, Callable[[], Awaitable[None]]]:
        """Return a random action: a change, a failure, or a failure in the middle of a change."""
        dice = self._random.random()
        change = self._random.choice(CHANGES)
        broken = self._random.choice(GENTLE if gentle else BREAKAGE)
        delay = self._random.uniform(0.0, 3.0)
        if gentle and dice >= 0.4 and self._random.random() < 0.6:
            dice = 0.0

        async def later() -> None:
            await asyncio.sleep(delay)
            await getattr(acts, broken)()

        async def both() -> None:
            await asyncio.gather(getattr(acts, change)(), later())

        if dice < 0.4:
            return change, getattr(acts, change)
        if dice < 0.7:
            return broken, getattr(acts, broken)
        return f"{change} with {broken}", both

    async def _look(self, act: str, acts: ChaosActions, oracle: Oracle, creations: Creations) -> bool:
        """Check everything after an action; return whether the run can continue."""
        began = time.monotonic()
        astray = await oracle.settled(acts.replicas, WAIT_TIMEOUT)
        self._violated(act, astray)
        self._violated(act, await oracle.history(acts.expected))
        self._violated(act, creations.twice())
        self._violated(act, self.statuses.take_violations())
        self._violated(act, acts.faults)
        acts.faults.clear()
        self._violated(act, self.traffic.wrong(self._ledgers()))
        counts = dict(self.traffic.requests)
        self._log.say("looked", settled=round(time.monotonic() - began, 2), requests=counts, violations=len(self.violations))
        return not astray

    def _violated(self, act: str, what: list[str]) -> None:
        for each in [*what[:SHOWN], *([f"… and {len(what) - SHOWN} more"] if len(what) > SHOWN else [])]:
            self.violations.append(f"act {act}: {each}")
            self._log.say("violation", act=act, problem=each)
            print(f"VIOLATION, seed {self._given.seed}, act {act}: {each}", flush=True)

    def _load(self, name: str, share: float) -> LoadGenerator:
        def ended(entry: RequestRecord) -> None:
            self.traffic.add(name, entry)
            self.statuses.add(name, entry)
            failed = {"error": entry.error} if entry.lost else {}
            figures = [round(entry.at, 3), round(entry.latency, 4), entry.status, entry.answered_by, entry.id]
            self._log.write("request", service=name, kind=entry.kind, fresh=entry.fresh, is_=figures, **failed)

        async def executions() -> Counter[str]:
            return Counter()  # the oracle reads the ledgers itself

        workload = Workload(rate=self._given.rate * share, slow_seconds=1.5, patience=60, seed=self._given.seed)
        return LoadGenerator(f"{self._sluice.gateway}/{name}", workload, executions=executions, on_entry=ended)

    def _ledgers(self) -> dict[str, Path]:
        return {name: self._mounted(name) / "ledger" for name in SERVICES}

    def _mounted(self, name: str) -> Path:
        volume = self._sluice.volume(f"{name}-orders")
        return Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume))

    def figures(self) -> dict[str, Any]:
        traffic = self.traffic
        return {
            "seed": self._given.seed,
            "minutes": round(self.seconds / 60, 1),
            "acts": dict(self.acts.most_common()),
            "deployments": dict(self.deployments),
            "events": self.events,
            "requests": dict(traffic.requests),
            "posts_run": sum(traffic.ran.values()),
            "lost_by_design": dict(traffic.excused),
            "late": traffic.late,
            "status_checks": self.statuses.checks,
            "seconds_until_down_was_shown": [round(each, 1) for each in self.statuses.shown_after],
            "worst_added_seconds": {name: round(worst, 2) for name, worst in traffic.worst.items()},
            "processes": self.gauges.report(),
            "violations": self.violations,
        }


def tell(figures: dict[str, Any]) -> str:
    acts, requests = sum(figures["acts"].values()), sum(figures["requests"].values())
    lines = [
        f"seed {figures['seed']}: {figures['minutes']} min, {acts} acts, {sum(figures['deployments'].values())} deployments "
        f"({figures['deployments']}), {figures['events']} events, {requests} requests, {figures['posts_run']} POSTs run",
        f"lost as allowed: {figures['lost_by_design'] or 'none'}; late (over 5 s): {figures['late']}; "
        f"worst added: {figures['worst_added_seconds']}",
    ]
    head = ["process", "lives", "longest, min", "memory MB", "MB/hour", "files", "files/hour"]
    rows = [
        [
            row["process"],
            row["processes"],
            row["minutes"],
            " → ".join(map(str, row["memory_mb"])),
            row["memory_mb_per_hour"],
            " → ".join(map(str, row["files"])),
            row["files_per_hour"],
        ]
        for row in figures["processes"]
    ]
    return "\n".join([*lines, table(head, rows), f"{len(figures['violations'])} violations"])


async def perform(given: argparse.Namespace) -> int:
    """Run the soak; return exit code 1 if there was a violation."""
    print(f"seed {given.seed}", flush=True)
    build(GATEWAY, ROOT / "services" / "gateway")
    images = [hello("1"), hello("2")]
    place = RESULTS / "soak"
    place.mkdir(parents=True, exist_ok=True)
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-seed-{given.seed}"
    with (place / f"{name}.jsonl").open("w", encoding="utf-8") as file, tempfile.TemporaryDirectory() as directory:
        sluice = SluiceProcess(Path(directory), name=given.name, SLUICE_GATEWAY_IMAGE=GATEWAY, SLUICE_LOG_FORMAT="console")
        if given.port:
            sluice.port, sluice.gateway_port = given.port, given.port + 1
            sluice.url, sluice.gateway = f"http://127.0.0.1:{given.port}", f"http://127.0.0.1:{given.port + 1}"
        with sluice:
            soak = Soak(given, sluice, Log(file), images)
            try:
                await soak.run()
            finally:
                (place / f"{name}.sluice.log").write_bytes(sluice.log.read_bytes())
    figures = soak.figures()
    (place / f"{name}.json").write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n", encoding="utf-8")
    print(tell(figures))
    print(f"raw log: {place / name}.jsonl")
    if soak.violations:
        print(f"FAILED with seed {given.seed}; first: {soak.violations[0]}")
    return int(bool(soak.violations))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rate", type=float, default=40, help="requests per second, over all services")
    parser.add_argument("--steady", type=float, default=0.4, help="share of the run, at its end, without kills of Sluice")
    parser.add_argument("--leave-out", nargs="*", default=[], help='ways to kill, such as "gateway: docker rm"')
    parser.add_argument("--name", default=None, help="name of the Sluice; default: generated")
    parser.add_argument("--port", type=int, default=None, help="port of the API; the gateway uses the next one")
    raise SystemExit(asyncio.run(perform(parser.parse_args())))


if __name__ == "__main__":
    main()
