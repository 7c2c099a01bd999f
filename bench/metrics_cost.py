"""The cost of traffic metrics: sampling a real gateway with many services, storing, and the overview."""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench.report import median, save, table
from services.gateway.config.model import GatewaySettings
from services.gateway.haproxy import HaproxyRouter
from services.routing.port import Endpoint, RoutedService
from services.routing.traffic_counts import CountKey
from services.spec import Healthcheck, Route
from services.store.database import Store
from services.store.open import open_store
from services.traffic_metrics.queries import service_metrics, sparklines
from services.traffic_metrics.repository import RAW_STEP, write_samples
from tests.support.docker_cli import ROOT, build, docker
from tests.support.sluice_process import free_port

IMAGE = "sluice-bench/gateway"
NEVER = Healthcheck(disable=True)


def told(services: int, dice: random.Random) -> Counter[CountKey]:
    """Return ten seconds of traffic to every service: two revisions, ten buckets each, some errors."""
    found: Counter[CountKey] = Counter()
    for number in range(services):
        for revision in (1, 2):
            for bucket in range(10):
                found[CountKey(f"s{number}", revision, None, bucket)] = dice.randint(1, 500)
            found[CountKey(f"s{number}", revision, 2, None)] = 2500
            found[CountKey(f"s{number}", revision, 5, None)] = 3
    return found


async def sample(directory: Path, services: int, instances: int, rounds: int) -> dict[str, float]:
    """Measure one sample of the gateway in milliseconds: Sluice's waiting time and CPU, and HAProxy's CPU."""
    gateway = HaproxyRouter(directory)
    await gateway.configure(GatewaySettings("127.0.0.1", "127.0.0.0/8", free_port()))
    name = docker("run", "--detach", "--network", "host", "--volume", f"{directory}:/run/gateway", IMAGE).strip()
    try:
        while await gateway.status() is None:  # noqa: ASYNC110 - the gateway sends no notification
            await asyncio.sleep(0.05)
        routed = [
            RoutedService(f"s{n}", 80, 21000 + n, routes=(Route(path_prefix=f"/s{n}"),), healthcheck=NEVER)
            for n in range(services)
        ]
        members = [
            Endpoint(f"s{n}-r1-{slot}", f"s{n}", f"127.1.{n}.{slot}", 80, "c@t", NEVER)
            for n in range(services)
            for slot in range(1, instances + 1)
        ]
        await gateway.restore(routed, members)
        entries = [f"set table answers key s{n}-r1/{bucket} data.gpc0 7" for n in range(services) for bucket in range(10)]
        api = gateway._api
        for start in range(0, len(entries), 50):
            await api.query("; @1 ".join(entries[start : start + 50]))
        await gateway.take_response_counts()
        waits, own, theirs = [], [], []
        for _ in range(rounds):
            wait, cpu, used = time.perf_counter(), time.process_time(), _worker_seconds(name)
            await gateway.take_response_counts()
            waits.append((time.perf_counter() - wait) * 1000)
            own.append((time.process_time() - cpu) * 1000)
            theirs.append((_worker_seconds(name) - used) * 1000)
        return {"wait_ms": median(waits), "sluice_cpu_ms": median(own), "haproxy_cpu_ms": sum(theirs) / rounds}
    finally:
        docker("rm", "--force", name)
        await gateway.close()


def store(data: Path, services: int, minutes: int) -> dict[str, float]:
    """Measure the store.

    Returns milliseconds to store a sample, to read the overview's sparklines and one service's last hour; megabytes a day.
    """
    opened = open_store(data)
    dice, begin = random.Random(1), 1_800_000_000
    times = []
    for at in range(begin, begin + minutes * 60, RAW_STEP):
        news = told(services, dice)
        times.append(_milliseconds(lambda at=at, news=news: _keep(opened, at, news)))  # type: ignore[misc]
    now = begin + minutes * 60
    with opened.read_session() as session:
        overview = median([_milliseconds(lambda: sparklines(session, now)) for _ in range(9)])
        one = median([_milliseconds(lambda: service_metrics(session, "s0", now)) for _ in range(9)])
        pages = session.connection().exec_driver_sql("SELECT sum(pgsize) FROM dbstat WHERE name = 'figure'").scalar_one()
        rows = session.connection().exec_driver_sql("SELECT count(*) FROM figure").scalar_one()
    opened.close()
    kept = services * 2 * (360 + 1440)
    return {
        "keep_ms": median(times),
        "keep_worst_ms": max(times),
        "sparklines_ms": overview,
        "one_service_ms": one,
        "bytes_a_row": pages / rows,
        "day_mb": pages / rows * kept / 1e6,
    }


def _keep(opened: Store, at: int, news: Counter[CountKey]) -> None:
    with opened.write_session() as session:
        write_samples(session, at, news)


def _milliseconds(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return (time.perf_counter() - before) * 1000


def _worker_seconds(container: str) -> float:
    """Return the CPU seconds of the gateway's processes, from the kernel's count of nanoseconds."""
    nanoseconds = 0
    for pid in docker("top", container, "-o", "pid").split()[1:]:
        nanoseconds += int(Path(f"/proc/{pid}/schedstat").read_text(encoding="utf-8").split()[0])
    return nanoseconds / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=100)
    parser.add_argument("--instances", type=int, default=10, help="of each")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--minutes", type=int, default=60, help="of figures in the store")
    given = parser.parse_args()
    build(IMAGE, ROOT / "services" / "gateway")
    with tempfile.TemporaryDirectory() as place:
        looked = asyncio.run(sample(Path(place) / "gateway", given.services, given.instances, given.rounds))
        kept = store(Path(place) / "data", given.services, given.minutes)
    found = {"services": given.services, "instances": given.instances, **looked, **kept}
    print(table(["what", "figure"], [[name, value] for name, value in found.items()]))
    print("saved to", save("sampling", found))


if __name__ == "__main__":
    main()
