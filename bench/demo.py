"""The show: one service deployed, broken, scaled, restarted and rolled back while every request to it is counted.

`make demo` runs it from Sluice's image. SLUICE_URL, SLUICE_TOKEN and SLUICE_NAME say which Sluice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
from rich.console import Console
from rich.status import Status
from rich.table import Table

from services.loadtest.ledger import Ledger, Summary
from services.loadtest.load import Load, Mix
from services.loadtest.wire import Broken

SERVICE = "hello"
INSTANCES = 3
RATE = 200.0
"""Requests a second: enough for a few hundred in each step, little enough to leave the machine to the deployments."""
STEADY = 2.0
"""Seconds of load before the first change, for comparison."""
_TERMINAL = {"succeeded", "rolled_back", "aborted", "rollback_failed", "failed", "superseded"}


class Spoilt(Exception):
    """The show cannot go on, or did not go as it should; the message says why."""


@dataclass(frozen=True)
class Step:
    """One change: `body` is posted to `path`. `status`: how its deployment must end."""

    title: str
    path: str
    body: dict[str, Any]
    status: str = "succeeded"


STEPS = (
    Step("second version", "/deployments", {"service": SERVICE, "image": "hello:2"}),
    Step("broken version", "/deployments", {"service": SERVICE, "image": "hello:broken"}, "rolled_back"),
    Step("scale out to 5", f"/services/{SERVICE}/scale", {"replicas": 5}),
    Step("scale in to 3", f"/services/{SERVICE}/scale", {"replicas": INSTANCES}),
    Step("restart", f"/services/{SERVICE}/restart", {}),
)


class Api:
    """Sluice by HTTP, as a script of anybody's would use it."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=httpx.Timeout(10, read=60)
        )

    async def get(self, path: str, **params: Any) -> dict[str, Any]:
        return await self._answer("GET", path, params=params)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._answer("POST", path, json=body, headers={"Idempotency-Key": uuid4().hex})

    async def change(self, path: str, body: dict[str, Any], told: Callable[[str], None]) -> dict[str, Any]:
        """The deployment, when it has ended; `told` hears what happens meanwhile."""
        deployment = await self.post(path, body)
        listening = asyncio.create_task(self._listen(deployment["links"]["events"], told))
        try:
            while deployment["status"] not in _TERMINAL | {"paused"}:
                deployment = await self.get(deployment["links"]["self"], wait=30)
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError, httpx.HTTPError):
                await listening
        return deployment

    async def _answer(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            answer = await self.http.request(method, path, **request)
        except httpx.TransportError as error:
            raise Spoilt(f"Sluice does not answer at {self.http.base_url}: {error}") from error
        if not answer.is_success:
            raise Spoilt(f"{method} {path}: {answer.status_code} {answer.text}")
        document: dict[str, Any] = answer.json()
        return document

    async def _listen(self, path: str, told: Callable[[str], None]) -> None:
        async with self.http.stream("GET", path, headers={"Accept": "text/event-stream"}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    with suppress(ValueError):
                        told(str(json.loads(line[5:]).get("message") or ""))


class Show:
    """Tells what goes on in one line that changes, and what is done in lines that stay."""

    def __init__(self, api: Api, console: Console, volume: str, rate: float) -> None:
        self._api = api
        self._console = console
        self._volume = volume
        self._rate = rate
        self._sent = self._lost = 0
        self._doing = ""
        self._news = ""
        self.seconds: dict[str, float] = {}

    async def run(self) -> Ledger:
        """Every step, under load. Raises Spoilt when one does not end as it must."""
        with self._console.status("") as line:
            first = await self._step(line, Step("first version", "/deployments", self._first()))
            rollback = Step("rollback", f"/services/{SERVICE}/rollback", {"to_revision": first["revision"]})
            service = await self._api.get(f"/services/{SERVICE}")
            if not service.get("url"):
                raise Spoilt("the service has no public address; SLUICE_DEFAULT_ROUTE must be /{name} for the demo")
            async with Load(service["url"], Mix(rate=self._rate), phase="steady", on_entry=self._count(line)) as load:
                self._doing, self._news = "steady load", ""
                await asyncio.sleep(STEADY)
                self._done("steady load", "")
                for step in (*STEPS, rollback):
                    load.mark(step.title)
                    before = await self._serving()
                    await self._step(line, step)
                    if step.status == "rolled_back" and await self._serving() != before:
                        raise Spoilt(f"the {step.title} changed what runs")
                self._doing, self._news = "the last requests come back", ""
        return load.ledger

    def _first(self) -> dict[str, Any]:
        ledger = {"type": "volume", "source": self._volume, "target": "/data", "shared": True}
        return {
            "service": SERVICE,
            "mode": "replace",
            "image": "hello:1",
            "replicas": INSTANCES,
            "healthcheck": {"path": "/healthz"},
            "volumes": [ledger],
            "note": "make demo",
        }

    async def _step(self, line: Status, step: Step) -> dict[str, Any]:
        def told(news: str) -> None:
            self._news = news
            self._show(line)

        self._doing, self._news = step.title, ""
        self._show(line)
        began = time.monotonic()
        ended = await self._api.change(step.path, step.body, told)
        self.seconds[step.title] = time.monotonic() - began
        if ended["status"] != step.status:
            raise Spoilt(f"{step.title}: {ended['status']}, {ended['reason']}: {ended['message']}")
        self._done(step.title, f"{self.seconds[step.title]:.1f} s  {ended['message'] or ''}")
        return ended

    async def _serving(self) -> set[str]:
        instances = await self._api.get("/instances", service=SERVICE)
        return {instance["container_id"] for instance in instances["items"] if instance["status"] == "serving"}

    def _count(self, line: Status) -> Callable[[Any], None]:
        def count(entry: Any) -> None:
            self._sent += 1
            self._lost += entry.lost
            if self._sent % 50 == 0:
                self._show(line)

        return count

    def _show(self, line: Status) -> None:
        counted = f"{self._sent} requests, {self._lost} lost" if self._sent else "no load yet"
        line.update(f"{self._doing}  [dim]{counted}  {_plain(self._news)}[/dim]")

    def _done(self, title: str, words: str) -> None:
        self._console.print(f"[green]✓[/green] {title:<16} [dim]{_plain(words)}[/dim]")


def _plain(text: str) -> str:
    """On one line, and no markup for rich."""
    return " ".join(text.split())[:100].replace("[", r"\[")


def table(ledger: Ledger, seconds: dict[str, float]) -> Table:
    """A row a phase and one for all. Latencies are what was added to a request's own time."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("while")
    for column in ("seconds", "requests", "lost", "run twice", "p50 ms", "p99 ms", "worst ms"):
        shown.add_column(column, justify="right")

    def row(title: str, summary: Summary, took: float, style: str = "") -> None:
        bad = "bold red" if summary.lost or summary.run_twice else style
        figures = (summary.requests, summary.lost, summary.run_twice, summary.p50_ms, summary.p99_ms, summary.worst_ms)
        shown.add_row(title, f"{took:.1f}", *(str(figure) for figure in figures), style=bad)

    for summary in ledger.summaries():
        row(summary.phase, summary, seconds.get(summary.phase, summary.seconds))
    whole = ledger.summary()
    row("all", whole, whole.seconds, "bold")
    return shown


async def perform(console: Console, rate: float) -> int:
    """The whole show. Returns the exit code: 1 when a request was lost or run twice, or a step went wrong."""
    url, name = os.environ.get("SLUICE_URL", "http://127.0.0.1:7080"), os.environ.get("SLUICE_NAME", "sluice")
    api = Api(url, os.environ.get("SLUICE_TOKEN", ""))
    try:
        show = Show(api, console, f"{name}-hello-ledger", rate)
        ledger = await show.run()
        link = await api.post("/sign-in-links", {})
    except (Spoilt, Broken, OSError) as error:
        console.print("[bold red]The demo failed.[/bold red]")
        console.print(str(error), highlight=False, markup=False)
        return 1
    finally:
        await api.http.aclose()
    return conclude(console, ledger, show.seconds, link["url"])


def conclude(console: Console, ledger: Ledger, seconds: dict[str, float], link: str) -> int:
    """Says what came of it. Returns the exit code."""
    console.print()
    console.print(table(ledger, seconds))
    console.print()
    whole = ledger.summary()
    if whole.lost or whole.run_twice or ledger.unrecorded:
        console.print(ledger.explain(), highlight=False, markup=False)
        console.print(
            f"[bold red]{whole.lost} lost, {whole.run_twice} run twice, {len(ledger.unrecorded)} not run.[/bold red]"
        )
        return 1
    console.print(f"[bold green]No request was lost and none was run twice, of {whole.requests}.[/bold green]")
    console.print(f"\nDashboard (this link signs you in once): {link}", soft_wrap=True, highlight=False)
    console.print(
        '\nTry next:\n  eval "$(make -s env)"; curl "$SLUICE_GATEWAY/hello"\n'
        "  scripts/sluice deploy hello --image hello:2\n  scripts/sluice rollback hello\n"
        "And when you have seen enough: make down",
        highlight=False,
        markup=False,
    )
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=RATE, help="requests a second")
    given = parser.parse_args()
    console = Console(width=None if os.environ.get("COLUMNS") or os.isatty(1) else 110)
    raise SystemExit(asyncio.run(perform(console, given.rate)))


if __name__ == "__main__":
    main()
