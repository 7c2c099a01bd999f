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
from services.loadtest.http1_client import ConnectionBroken
from services.loadtest.live_stats import LiveStats
from services.loadtest.load_generator import LoadGenerator, Workload
from services.loadtest.request_log import RequestLog

REPORT_INTERVAL = 5.0
"""Seconds between two progress lines if no terminal shows the live table."""
EXECUTIONS_INTERVAL = 2.0
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
    workload = Workload(rate=rate, posts=posts, slow=slow, fresh=fresh, seconds=seconds or math.inf, requests=sys.maxsize)
    if gets_only:
        workload = replace(workload, posts=0, slow=0)
    return asyncio.run(_run(out, _checked(url), workload, LiveStats(slow_after), version_header))


async def _run(out: Output, url: str, workload: Workload, stats: LiveStats, version_header: str) -> int:
    workload = await _fitting(out, url, workload)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    load = LoadGenerator(url, workload, phase="load", on_entry=stats.add, version_header=version_header)
    out.say("Stop it with Ctrl-C." if workload.seconds == math.inf else f"Runs for {workload.seconds:g} s, or until Ctrl-C.")
    unknown = ""
    try:
        async with load:
            beside = [asyncio.create_task(work) for work in _beside(out, load, stats)]
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), None if workload.seconds == math.inf else workload.seconds)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
    except (ConnectionBroken, OSError) as error:
        unknown = str(error) or type(error).__name__
    return _conclude(out, url, load.request_log, stats, unknown)


async def _fitting(out: Output, url: str, workload: Workload) -> Workload:
    """Return the workload without the requests that this URL does not support.

    Raises CliError if nothing answers there.
    """
    asked = LoadGenerator(url)
    try:
        await asked.get_path()
    except (ConnectionBroken, OSError) as error:
        message = f"no answer from {url}: {error or type(error).__name__}"
        raise CliError(message, "", UNREACHABLE, {"code": "unreachable", "detail": message}) from error
    if not (workload.posts or workload.slow):
        return workload
    try:
        await asked.read_executions()
    except (ConnectionBroken, OSError):
        out.say("Sending plain GETs only: the target has no order ledger as samples/hello has.")
        return replace(workload, posts=0, slow=0)
    return workload


def _beside(out: Output, load: LoadGenerator, stats: LiveStats) -> list[Coroutine[Any, Any, None]]:
    """Return the tasks that run beside the load: the display, and reading the executed orders."""
    work = [_show(out, stats) if out.is_live else _tell(out, stats)]
    return [*work, _ask(load, stats)] if load.mix.posts else work


async def _show(out: Output, stats: LiveStats) -> None:
    # used only with a terminal, and takes a tenth of a second to load
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(
        console=Console(stderr=True),
        get_renderable=lambda: Text.from_ansi(rendered(_table(out, stats), colours=True)),
        transient=True,
    ):
        await asyncio.Event().wait()


async def _tell(out: Output, stats: LiveStats) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(REPORT_INTERVAL)
        whole = stats.whole
        answers = ", ".join(f"{row.answered} by {name or '?'}" for name, row in stats.rows.items() if row.answered)
        out.say(
            f"{time.monotonic() - began:.0f} s: {whole.requests} requests, {whole.lost} lost, {whole.slow} slow, "
            f"{whole.run_twice} run twice; answered: {answers or 'none'}"
        )


async def _ask(load: LoadGenerator, stats: LiveStats) -> None:
    while True:
        began = time.monotonic()
        with suppress(ConnectionBroken, OSError):  # a failed read is repeated in the next round, and at the end
            stats.ran(await load.read_executions())
        await asyncio.sleep(max(EXECUTIONS_INTERVAL, 20 * (time.monotonic() - began)))


def _table(out: Output, stats: LiveStats) -> str:
    titles = ("VERSION", "ANSWERED", "LOST", "SLOW", "RUN TWICE", "WORST MS")
    rows = [("all", stats.whole)] if len(stats.rows) != 1 else []
    rows = [(name or "?", row) for name, row in stats.rows.items()] + rows
    return columns(
        titles, [(name, row.answered, row.lost, row.slow, row.run_twice, row.worst_ms) for name, row in rows], out.width
    )


def _conclude(out: Output, url: str, request_log: RequestLog, stats: LiveStats, unknown: str) -> int:
    """Print the result and return the exit code.

    `unknown`: why the executed orders could not be read; empty if they were.
    """
    stats.ran(request_log.executions)
    summary, whole = request_log.summary(), stats.whole
    unrecorded = 0 if unknown else len(request_log.unrecorded)
    document = {
        "url": url,
        "seconds": summary.seconds,
        **asdict(whole),
        "run_twice": None if unknown else whole.run_twice,
        "unrecorded": None if unknown else unrecorded,
        "p50_ms": summary.p50_ms,
        "p99_ms": summary.p99_ms,
        "versions": [{"version": name or None, **asdict(row)} for name, row in stats.rows.items()],
    }
    if whole.lost or whole.run_twice:
        out.say(request_log.explain())
    if unrecorded:
        out.say(
            f"{unrecorded} orders were confirmed but are in no ledger; check that all instances write to one ledger", "red"
        )
    if unknown:
        out.say(f"Duplicate executions are unknown: the application's ledger could not be read: {unknown}", "red")
    latency = (
        f"p50 {summary.p50_ms} ms, p99 {summary.p99_ms} ms, worst {summary.worst_ms} ms above a request's expected time"
    )
    text = f"{_table(out, stats)}\n\n{whole.requests} requests in {summary.seconds:.1f} s: {whole.lost} lost; {latency}."
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
