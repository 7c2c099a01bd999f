"""sluice logs: what instances write, of one or of a whole service, as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, NoReturn

import typer

from app.cli.client.events import messages
from app.cli.client.http import Away
from app.cli.command import Desk, verb
from app.cli.errors import USAGE, Trouble, usage
from app.cli.input.options import Writing
from app.cli.output.messages import GONE, Document
from app.cli.terminal import styled

_AGAIN = 1.0
"""Seconds after which a stream that ended is taken up again."""
_REST = 1000
"""The most lines that are caught up on after the stream of one instance broke off."""
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")
_SPAN = re.compile(r"(\d+)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@verb
async def logs(
    desk: Desk,
    target: Writing,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as more is written; new instances included.")
    ] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="So many lines from the end of each.")] = 200,
    since: Annotated[str | None, typer.Option(help="10m, 2h, 1d, or a time such as 2026-11-24T20:00:00Z.")] = None,
) -> None:
    """Show what instances write.

    One that failed and is gone still shows the end of its log.
    """
    moment = _moment(since)
    instances, service = await _find(desk, target)
    writer = _Writer(desk, many=service is not None)
    if follow and service is not None:
        await _follow(desk, writer, service, tail, moment)
    if not instances:
        raise Trouble(f"{target} has no instance", "`sluice ps --all` lists those that have gone; their logs are by id.")
    for instance in instances:
        await _print(desk, writer, instance, tail, moment, follow=follow)


class _Writer:
    """Lines of several instances side by side: each with the id before it, in a colour of its own."""

    def __init__(self, desk: Desk, *, many: bool) -> None:
        self._desk = desk
        self._many = many
        self._colours: dict[str, str] = {}

    def write(self, instance: str, line: str) -> None:
        before = ""
        if self._many:
            colour = self._colours.setdefault(instance, _COLOURS[len(self._colours) % len(_COLOURS)])
            before = styled(f"{instance} | ", colour)
        self._desk.out.line({"instance": instance, "line": line}, before + line)


async def _find(desk: Desk, target: str) -> tuple[list[Document], str | None]:
    """The instances, newest first, and the service's name unless `target` is one instance."""
    try:
        await desk.client.get(f"/services/{target}")
    except Trouble as trouble:
        if trouble.exit_code != USAGE or "-r" not in target:
            raise
        return [await desk.client.get(f"/instances/{target}")], None
    return await _living(desk, target), target


async def _living(desk: Desk, service: str) -> list[Document]:
    """Those that have a container; a failed one may."""
    found: list[Document] = await desk.client.get_all("/instances", service=service)
    return [instance for instance in found if instance["status"] != "creating"]


async def _follow(desk: Desk, writer: _Writer, service: str, tail: int, moment: str | None) -> NoReturn:
    """All that a service has, for ever, whatever instance comes included: Sluice has one stream of that. One that broke off
    begins a little before its end again: what was written of an instance is not written twice."""
    last, written = "", dict[str, str]()

    async def read() -> None:
        nonlocal last
        path, resumed = f"/services/{service}/logs", {"Last-Event-ID": last} if last else None
        asked = {"tail": tail, "follow": True, "since": moment}
        async with desk.client.stream(path, accept="text/event-stream", headers=resumed, **asked) as lines:
            async for id, line in messages(lines):
                if id > written.get(name := line.get("instance", ""), ""):
                    last = written[name] = id
                    writer.write(name, line["text"])

    while True:
        await desk.client.patiently(read)
        await asyncio.sleep(_AGAIN)


async def _print(desk: Desk, writer: _Writer, instance: Document, tail: int, moment: str | None, *, follow: bool) -> None:
    """One instance's lines; of one that failed and is gone, what Sluice kept. Following ends with the instance."""
    name = instance["id"]
    newest = moment

    async def read() -> None:
        nonlocal newest
        path = f"/instances/{name}/logs"
        async with desk.client.stream(path, accept="text/plain", tail=tail, follow=follow or None, since=newest) as lines:
            async for line in lines:
                newest = _rfc3339(datetime.now(UTC))
                writer.write(name, line)

    try:
        while follow:
            # a stream ends with its container, but also when Sluice is restarted: then it is taken up where it was
            with contextlib.suppress(Away):
                await read()
            if (await desk.client.get(f"/instances/{name}"))["status"] in GONE:
                return
            tail = _REST
            await asyncio.sleep(_AGAIN)
        await desk.client.patiently(read)
    except Trouble as trouble:
        if trouble.document.get("code") != "logs_gone":
            raise
        desk.out.say(f"{name} has gone, and its log with it.")


def _moment(since: str | None) -> str | None:
    """RFC 3339, whether a time or a span before now was given."""
    if since is None:
        return None
    span = _SPAN.fullmatch(since)
    if span:
        return _rfc3339(datetime.now(UTC) - timedelta(seconds=int(span[1]) * _SECONDS[span[2]]))
    try:
        given = datetime.fromisoformat(since)
    except ValueError:
        raise usage(
            f"--since {since!r} is neither a time nor a span", "Such as 10m, 2h, 1d or 2026-11-24T20:00:00Z."
        ) from None
    return _rfc3339(given)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
