"""The dashboard: time to serve the overview, time from event to screen, cost of fifty open pages.

    python -m bench.pages

Sluice is a separate process on a fake engine and a fake gateway, so that only its own work is measured. The bars:
200 services of 5 instances in 50 ms; an event in 200 ms; 50 pages cost a tenth of a core more than none while 20
deployments run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import tempfile
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import async_playwright

from bench.concurrent_deploys import Fake, processor
from bench.report import median, save, table
from services.loadtest.request_log import percentile
from services.store.open import DATABASE
from services.traffic_metrics.histogram import BUCKETS
from services.traffic_metrics.repository import ALL, ROLLUP_STEP
from tests.browser.network import CHROMIUM, FLAGS

AT_ONCE = 20
ROUNDS, TOGGLES, READS = 3, 30, 60
OVERVIEWS, SERVICES = 20, 10
"""Numbers of open overview pages and service pages; the other pages show the running deployments."""
NEVER = {"test": ["CMD", "false"], "disable": None}
SEEN = """status => new Promise(done => {
    const pill = document.querySelector('#part-deployment .head .pill');
    const look = () => {
        if (document.querySelector('#part-deployment .head .pill').textContent !== status) return;
        watching.disconnect();
        requestAnimationFrame(() => requestAnimationFrame(() => done(Date.now())));
    };
    const watching = new MutationObserver(look);
    watching.observe(document.getElementById('part-deployment'), {childList: true, subtree: true, characterData: true});
    look();
})"""
"""Script that waits for a status and resolves at the second frame after the change.

When that frame begins, the first one is on the screen.
"""


async def deployed(http: httpx.AsyncClient, body: dict[str, Any]) -> int:
    answer = await http.post("/deployments", params={"wait": 120}, json=body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["id"])


async def fill(http: httpx.AsyncClient, data: Path, services: int, instances: int) -> list[str]:
    """Deploy the services, and store an hour of traffic metrics."""
    names = [f"service-{number:03}" for number in range(services)]
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async with turns:
            body = {"service": name, "image": "hello:1", "replicas": instances, "healthcheck": {"disable": True}}
            await deployed(http, body)

    await asyncio.gather(*(one(name) for name in names))
    end = int(time.time()) // ROLLUP_STEP * ROLLUP_STEP
    histogram = json.dumps([3] * BUCKETS)
    rows = [
        (ROLLUP_STEP, at, name, 0 if name == ALL else 1, 900 + at % 700, 3, at % 3, histogram)
        for at in range(end - 3600, end, ROLLUP_STEP)
        for name in (ALL, *names)
    ]
    with closing(sqlite3.connect(data / DATABASE, timeout=30)) as database, database:
        database.executemany("INSERT OR IGNORE INTO figure VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    return names


async def served(http: httpx.AsyncClient) -> dict[str, Any]:
    """Measure the milliseconds to load the whole overview.

    Without open pages nothing is cached, so each request reads and renders all of it.
    """
    took = []
    for _ in range(READS):
        began = time.perf_counter()
        answer = await http.get("/ui/")
        took.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200
    took.sort()
    return {
        "p50_ms": percentile(took, 0.5),
        "p99_ms": percentile(took, 0.99),
        "first_ms": took[-1],
        "bytes": len(answer.content),
    }


async def seen(http: httpx.AsyncClient) -> dict[str, Any]:
    """Measure the milliseconds from an event's own time to the frame that shows it.

    The events are those of a deployment that is paused and resumed.
    """
    await deployed(http, {"service": "watched", "image": "hello:1", "healthcheck": {"disable": True}})
    body = {"service": "watched", "image": "hello:2", "healthcheck": NEVER}
    id = (await http.post("/deployments", json=body)).json()["id"]
    took: list[float] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = await browser.new_page()
        await page.goto((await http.post("/sign-in-links")).json()["url"])
        await page.goto(f"{http.base_url}/ui/deployments/{id}")
        await page.locator("#link[data-state=live]").wait_for()
        for turn in range(TOGGLES):
            action, status = [("pause", "paused"), ("resume", "progressing")][turn % 2]
            watching = asyncio.create_task(page.evaluate(SEEN, status))
            await asyncio.sleep(0.3)  # let the page settle and open its stream
            await http.post(f"/deployments/{id}/{action}")
            told = (await http.get(f"/deployments/{id}/events", params={"limit": 200})).json()["items"]
            at = max(datetime.fromisoformat(event["at"]).timestamp() for event in told if event["type"] == status)
            took.append(await watching - at * 1000)
        await browser.close()
    await http.post(f"/deployments/{id}/abort")
    took.sort()
    return {"median_ms": median(took), "p99_ms": percentile(took, 0.99), "worst_ms": took[-1]}


async def keep_open(http: httpx.AsyncClient, path: str, got: list[int]) -> None:
    async with http.stream("GET", f"{path}/stream", timeout=None) as answer:
        assert answer.status_code == 200, path
        async for chunk in answer.aiter_bytes():
            got.append(len(chunk))


async def watched(http: httpx.AsyncClient, pid: int, names: list[str], image: str, pages: bool) -> dict[str, float]:
    """Return the share of a core that Sluice uses while those services are deployed one after the other."""
    got: list[int] = []
    paths = ["/ui"] * OVERVIEWS + [f"/ui/services/{name}" for name in names[:SERVICES]] if pages else []
    open_pages = [asyncio.create_task(keep_open(http, path, got)) for path in paths]
    await asyncio.sleep(1.5)
    began, before = time.monotonic(), processor(pid)
    for name in names:
        id = (await http.post("/deployments", json={"service": name, "image": image})).json()["id"]
        if pages:
            open_pages.append(asyncio.create_task(keep_open(http, f"/ui/deployments/{id}", got)))
        await http.get(f"/deployments/{id}", params={"wait": 60})
    seconds, used = time.monotonic() - began, processor(pid) - before
    for task in open_pages:
        task.cancel()
    await asyncio.gather(*open_pages, return_exceptions=True)
    return {"share": used / seconds, "seconds": seconds, "pages": len(open_pages), "megabytes": sum(got) / 1e6}


async def run(given: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as directory, Fake(Path(directory)) as sluice:
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {sluice.token}"}
        async with httpx.AsyncClient(base_url=sluice.url, headers=headers, limits=limits, timeout=150) as http:
            names = await fill(http, sluice.data, given.services, given.instances)
            overview = await served(http)
            pixel = await seen(http)
            rounds: list[dict[str, Any]] = []
            for _ in range(ROUNDS):
                chosen = names[: given.deployments]
                without = await watched(http, sluice.pid, chosen, "hello:2", False)
                there = await watched(http, sluice.pid, chosen, "hello:1", True)
                rounds.append({"none": without, "open": there, "cost": there["share"] - without["share"]})
    print(table(["overview, ms", "p50", "p99", "first", "bytes"], [["", *overview.values()]]))
    print(table(["event to pixel, ms", "median", "p99", "worst"], [["", *pixel.values()]]))
    head = ["round", "none: core", "open: core", "cost", "pages", "s", "MB"]
    print(table(head, [[n, r["none"]["share"], r["open"]["share"], r["cost"], r["open"]["pages"], r["open"]["seconds"],
                        r["open"]["megabytes"]] for n, r in enumerate(rounds, 1)]))  # fmt: skip
    figures = {"overview": overview, "event_to_pixel": pixel, "open_pages": rounds}
    print("saved to", save("pages", {**vars(given), **figures}))
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--instances", type=int, default=5)
    parser.add_argument("--deployments", type=int, default=20)
    raise SystemExit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
