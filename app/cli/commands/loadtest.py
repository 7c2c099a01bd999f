"""sluice loadtest: requests to any URL, each one counted by the version that answered it.

It runs until Ctrl-C or for a given time.
"""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from app.cli.command import local_command
from app.cli.errors import NOT_SUCCEEDED, SUCCEEDED, UNREACHABLE, CliError, usage
from app.cli.output.console import Output, columns
from app.cli.terminal import rendered
from services.loadtest.http1_client import Broken
from services.loadtest.live_stats import LiveStats
from services.loadtest.load_generator import LoadGenerator, Workload
from services.loadtest.request_log import RequestLog

TOLD_EVERY = 5.0
"""Seconds between two progress lines if no terminal shows the live table."""
LEDGER_EVERY = 2.0
"""Minimum seconds between two reads of the executed orders.

The pause is also at least twenty times as long as the read took, so that reading is no load itself.
"""


@local_command
def loadtest(
    out: Output,
    url: Annotated[str, typer.Argument(help="Target URL, such as http://127.0.0.1:8080/hello.", show_default=False)],
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Requests per second.")] = 100,
    seconds: Annotated[float | None, typer.Option("--for", min=0.1, help="Duration in seconds.")] = None,
    posts: Annotated[float, typer.Option(min=0, max=1, help="Share of POSTs, each with a unique id.")] = Workload.posts,
    slow: Annotated[float, typer.Option(min=0, max=1, help="Share of requests that take 2 s.")] = Workload.slow,
    fresh: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests on new connections; the rest use keep-alive.")
    ] = Workload.fresh,
    gets_only: Annotated[bool, typer.Option("--gets-only", help="Send plain GETs only.")] = False,
    slow_after: Annotated[
        float, typer.Option(min=0, help="Seconds above its expected time from which a request counts as slow.")
    ] = 1.0,
    version_header: Annotated[str, typer.Option(help="Response header that names the version.")] = "X-Version",
) -> int:
    """Send requests to URL and count what each version answered, lost, answered slowly and ran twice.

    Stop it with Ctrl-C. Sends POSTs and slow requests only if URL answers as samples/hello does, else only GETs
    (docs/cli.md).
    """
    if posts + slow > 1:
        raise usage("--posts and --slow must not exceed 1 together")
    mix = Workload(rate=rate, posts=posts, slow=slow, fresh=fresh, seconds=seconds or math.inf, requests=sys.maxsize)
    if gets_only:
        mix = replace(mix, posts=0, slow=0)
    return asyncio.run(_run(out, _checked(url), mix, LiveStats(slow_after), version_header))


async def _run(out: Output, url: str, mix: Workload, tally: LiveStats, version_header: str) -> int:
    mix = await _fitting(out, url, mix)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    load = LoadGenerator(url, mix, phase="load", on_entry=tally.add, version_header=version_header)
    out.say("Stop it with Ctrl-C." if mix.seconds == math.inf else f"Runs for {mix.seconds:g} s, or until Ctrl-C.")
    unknown = ""
    try:
        async with load:
            beside = [asyncio.create_task(work) for work in _beside(out, load, tally)]
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), None if mix.seconds == math.inf else mix.seconds)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
    except (Broken, OSError) as error:
        unknown = str(error) or type(error).__name__
    return _conclude(out, url, load.ledger, tally, unknown)


async def _fitting(out: Output, url: str, mix: Workload) -> Workload:
    """Return the workload without the requests that this URL does not support.

    Raises CliError if nothing answers there.
    """
    asked = LoadGenerator(url)
    try:
        await asked.look()
    except (Broken, OSError) as error:
        message = f"no answer from {url}: {error or type(error).__name__}"
        raise CliError(message, "", UNREACHABLE, {"code": "unreachable", "detail": message}) from error
    if not (mix.posts or mix.slow):
        return mix
    try:
        await asked.look_at_ledger()
    except (Broken, OSError):
        out.say("Sending plain GETs only: the target has no order ledger as samples/hello has.")
        return replace(mix, posts=0, slow=0)
    return mix


def _beside(out: Output, load: LoadGenerator, tally: LiveStats) -> list[Coroutine[Any, Any, None]]:
    """Return the tasks that run beside the load: the display, and reading the executed orders."""
    work = [_show(out, tally) if out.lively else _tell(out, tally)]
    return [*work, _ask(load, tally)] if load.mix.posts else work


async def _show(out: Output, tally: LiveStats) -> None:
    # used only with a terminal, and takes a tenth of a second to load
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(
        console=Console(stderr=True),
        get_renderable=lambda: Text.from_ansi(rendered(_table(out, tally), colours=True)),
        transient=True,
    ):
        await asyncio.Event().wait()


async def _tell(out: Output, tally: LiveStats) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(TOLD_EVERY)
        whole = tally.whole
        answers = ", ".join(f"{row.answered} by {name or '?'}" for name, row in tally.rows.items() if row.answered)
        out.say(
            f"{time.monotonic() - began:.0f} s: {whole.requests} requests, {whole.lost} lost, {whole.slow} slow, "
            f"{whole.run_twice} run twice; answered: {answers or 'none'}"
        )


async def _ask(load: LoadGenerator, tally: LiveStats) -> None:
    while True:
        began = time.monotonic()
        with suppress(Broken, OSError):  # a failed read is repeated in the next round, and at the end
            tally.ran(await load.look_at_ledger())
        await asyncio.sleep(max(LEDGER_EVERY, 20 * (time.monotonic() - began)))


def _table(out: Output, tally: LiveStats) -> str:
    titles = ("VERSION", "ANSWERED", "LOST", "SLOW", "RUN TWICE", "WORST MS")
    rows = [("all", tally.whole)] if len(tally.rows) != 1 else []
    rows = [(name or "?", row) for name, row in tally.rows.items()] + rows
    return columns(
        titles, [(name, row.answered, row.lost, row.slow, row.run_twice, row.worst_ms) for name, row in rows], out.width
    )


def _conclude(out: Output, url: str, ledger: RequestLog, tally: LiveStats, unknown: str) -> int:
    """Print the result and return the exit code.

    `unknown`: why the executed orders could not be read; empty if they were.
    """
    tally.ran(ledger.executions)
    summary, whole = ledger.summary(), tally.whole
    unrecorded = 0 if unknown else len(ledger.unrecorded)
    document = {
        "url": url,
        "seconds": summary.seconds,
        **asdict(whole),
        "run_twice": None if unknown else whole.run_twice,
        "unrecorded": None if unknown else unrecorded,
        "p50_ms": summary.p50_ms,
        "p99_ms": summary.p99_ms,
        "versions": [{"version": name or None, **asdict(row)} for name, row in tally.rows.items()],
    }
    if whole.lost or whole.run_twice:
        out.say(ledger.explain())
    if unrecorded:
        out.say(
            f"{unrecorded} orders were confirmed but are in no ledger; check that all instances write to one ledger", "red"
        )
    if unknown:
        out.say(f"Duplicate executions are unknown: the application's ledger could not be read: {unknown}", "red")
    latency = (
        f"p50 {summary.p50_ms} ms, p99 {summary.p99_ms} ms, worst {summary.worst_ms} ms above a request's expected time"
    )
    text = f"{_table(out, tally)}\n\n{whole.requests} requests in {summary.seconds:.1f} s: {whole.lost} lost; {latency}."
    out.result(document, text, f"{whole.lost} lost, {whole.run_twice} run twice")
    return NOT_SUCCEEDED if whole.lost or whole.run_twice or unrecorded or unknown else SUCCEEDED


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or any(c.isspace() for c in url):
        raise usage(f"invalid URL: {url!r}", "Use a complete URL, such as http://127.0.0.1:8080/hello.")
    return url
