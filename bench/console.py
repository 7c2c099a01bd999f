"""Console output of a demo: a live line for the present step, lines for finished ones, a final table."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from bench.api import Api, UnexpectedResult
from services.loadtest.request_log import RequestLog, RequestRecord, Summary


class DemoConsole:
    """Live display of a demo, shown inside `with`. `seconds`: title of a step → its duration."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self._line = console.status("")
        self._sent = self._lost = 0
        self._doing = self._news = ""

    def __enter__(self) -> DemoConsole:
        self._line.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.stop()

    def count(self, entry: RequestRecord) -> None:
        """Count a finished request; the `on_entry` of a LoadGenerator."""
        self._sent += 1
        self._lost += entry.lost
        if self._sent % 50 == 0:
            self._show()

    def news(self, words: str) -> None:
        self._news = words
        self._show()

    @asynccontextmanager
    async def doing(self, title: str) -> AsyncIterator[Callable[[str], None]]:
        """Show a step until the block is left; then print the step and its duration.

        The texts given to the yielded function are printed with it.
        """
        said: list[str] = []
        self._doing = title
        self.news("")
        began = time.monotonic()
        yield said.append
        self.seconds[title] = time.monotonic() - began
        words = _plain(" ".join([f"{self.seconds[title]:.1f} s ", *said]))
        self.console.print(f"[green]✓[/green] {title:<16} [dim]{words}[/dim]")

    async def change(
        self, api: Api, title: str, path: str, body: dict[str, Any], status: str = "succeeded"
    ) -> dict[str, Any]:
        """Post `body` to `path`, show the deployment's progress, and return the ended deployment.

        Raises Spoilt if it does not end as `status`.
        """
        async with self.doing(title) as say:
            ended = await api.change(path, body, self.news)
            if ended["status"] != status:
                raise UnexpectedResult(f"{title}: {ended['status']}, {ended['reason']}: {ended['message']}")
            say(ended["message"] or "")
        return ended

    def _show(self) -> None:
        counted = f"{self._sent} requests, {self._lost} lost" if self._sent else "no load yet"
        self._line.update(f"{self._doing}  [dim]{counted}  {_plain(self._news)}[/dim]")


def _plain(text: str) -> str:
    """Return the text on one line and escaped, so that rich reads no markup in it."""
    return " ".join(text.split())[:100].replace("[", r"\[")


def table(ledger: RequestLog, seconds: dict[str, float]) -> Table:
    """Return a table with a row per phase and one for all.

    Latencies are those added to a request's own time.
    """
    shown = Table(box=None, header_style="bold", pad_edge=False)
    shown.add_column("while")
    for column in ("seconds", "requests", "lost", "run twice", "p50 ms", "p99 ms", "worst ms", "version"):
        shown.add_column(column, justify="right")

    def row(title: str, summary: Summary, took: float, versions: str, style: str = "") -> None:
        bad = "bold red" if summary.lost or summary.run_twice else style
        figures = (summary.requests, summary.lost, summary.run_twice, summary.p50_ms, summary.p99_ms, summary.worst_ms)
        shown.add_row(title, f"{took:.1f}", *(str(figure) for figure in figures), versions, style=bad)

    for summary in ledger.summaries():
        versions = dict.fromkeys(e.version for e in ledger.entries if e.version and e.phase == summary.phase)
        row(summary.phase, summary, seconds.get(summary.phase, summary.seconds), " → ".join(versions))
    whole = ledger.summary()
    row("all", whole, whole.seconds, "", "bold")
    return shown


def verdict(console: Console, ledger: RequestLog, seconds: dict[str, float]) -> int:
    """Print the table and its failures; return exit code 1 if a request was lost, run twice or not run."""
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
    console.print(f"[bold green]Of {whole.requests} requests none was lost and none was run twice.[/bold green]")
    return 0


def play(what: str | None, rate: float, perform: Callable[[Console, float], Coroutine[Any, Any, int]]) -> NoReturn:
    """Run a demo as a program. `what`: its description; `rate`: default for the requests a second."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--rate", type=float, default=rate, help="requests per second")
    given = parser.parse_args()
    console = Console(width=None if os.environ.get("COLUMNS") or os.isatty(1) else 110)
    raise SystemExit(asyncio.run(perform(console, given.rate)))
