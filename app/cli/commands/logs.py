"""sluice logs: the log lines of one instance or of a whole service, as they are written."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, NoReturn

import typer

from app.cli.client.events import messages
from app.cli.client.http import ServerUnavailable
from app.cli.command import CommandContext, command
from app.cli.errors import USAGE, CliError, usage
from app.cli.input.options import Writing
from app.cli.output.messages import GONE, Document
from app.cli.terminal import styled

_AGAIN = 1.0
"""Seconds before a stream that ended is opened again."""
_REST = 1000
"""Maximum number of missed lines that are fetched after the stream of one instance was interrupted."""
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")
_SPAN = re.compile(r"(\d+)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@command
async def logs(
    context: CommandContext,
    target: Writing,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow new lines, also those of new instances.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, help="Number of lines from the end of each log.")] = 200,
    since: Annotated[str | None, typer.Option(help="Duration or time: 10m, 2h, 1d, 2026-11-24T20:00:00Z.")] = None,
) -> None:
    """Show the logs of a service or of an instance.

    A failed instance that was removed still shows the end of its log.
    """
    moment = _moment(since)
    instances, service = await _find(context, target)
    writer = _Writer(context, many=service is not None)
    if follow and service is not None:
        await _follow(context, writer, service, tail, moment)
    if not instances:
        raise CliError(
            f"{target} has no instances",
            "`sluice ps --all` lists removed instances; `sluice logs INSTANCE` shows the log of one.",
        )
    for instance in instances:
        await _print(context, writer, instance, tail, moment, follow=follow)


class _Writer:
    """Writer of the lines of several instances, each with its instance's id as a coloured prefix."""

    def __init__(self, context: CommandContext, *, many: bool) -> None:
        self._desk = context
        self._many = many
        self._colours: dict[str, str] = {}

    def write(self, instance: str, line: str) -> None:
        before = ""
        if self._many:
            colour = self._colours.setdefault(instance, _COLOURS[len(self._colours) % len(_COLOURS)])
            before = styled(f"{instance} | ", colour)
        self._desk.out.line({"instance": instance, "line": line}, before + line)


async def _find(context: CommandContext, target: str) -> tuple[list[Document], str | None]:
    """Return the instances, newest first, and the service's name unless `target` is one instance."""
    try:
        await context.client.get(f"/services/{target}")
    except CliError as error:
        if error.exit_code != USAGE or "-r" not in target:
            raise
        return [await context.client.get(f"/instances/{target}")], None
    return await _living(context, target), target


async def _living(context: CommandContext, service: str) -> list[Document]:
    """Return the service's instances that have a container, as a failed one may."""
    found: list[Document] = await context.client.get_all("/instances", service=service)
    return [instance for instance in found if instance["status"] != "creating"]


async def _follow(context: CommandContext, writer: _Writer, service: str, tail: int, moment: str | None) -> NoReturn:
    """Print all lines of a service's instances, including new instances, until interrupted.

    Sluice has one stream for that. A stream that is opened again starts a little before the point of interruption,
    so lines that were already printed for an instance are skipped.
    """
    last, written = "", dict[str, str]()

    async def read() -> None:
        nonlocal last
        path, resumed = f"/services/{service}/logs", {"Last-Event-ID": last} if last else None
        asked = {"tail": tail, "follow": True, "since": moment}
        async with context.client.stream(path, accept="text/event-stream", headers=resumed, **asked) as lines:
            async for id, line in messages(lines):
                if id > written.get(name := line.get("instance", ""), ""):
                    last = written[name] = id
                    writer.write(name, line["text"])

    while True:
        await context.client.retry_while_unavailable(read)
        await asyncio.sleep(_AGAIN)


async def _print(
    context: CommandContext, writer: _Writer, instance: Document, tail: int, moment: str | None, *, follow: bool
) -> None:
    """Print the lines of one instance; of a failed one that was removed, the tail that Sluice kept.

    With `follow`, return when the instance has ended.
    """
    name = instance["id"]
    newest = moment

    async def read() -> None:
        nonlocal newest
        path = f"/instances/{name}/logs"
        async with context.client.stream(path, accept="text/plain", tail=tail, follow=follow or None, since=newest) as lines:
            async for line in lines:
                newest = _rfc3339(datetime.now(UTC))
                writer.write(name, line)

    try:
        while follow:
            # a stream ends with its container, but also when Sluice restarts: then it is resumed
            with contextlib.suppress(ServerUnavailable):
                await read()
            if (await context.client.get(f"/instances/{name}"))["status"] in GONE:
                return
            tail = _REST
            await asyncio.sleep(_AGAIN)
        await context.client.retry_while_unavailable(read)
    except CliError as error:
        if error.document.get("code") != "logs_gone":
            raise
        context.out.say(f"{name} was removed, and its log with it.")


def _moment(since: str | None) -> str | None:
    """Return `since`, a time or a duration before now, as RFC 3339. Raises CliError if it is neither."""
    if since is None:
        return None
    span = _SPAN.fullmatch(since)
    if span:
        return _rfc3339(datetime.now(UTC) - timedelta(seconds=int(span[1]) * _SECONDS[span[2]]))
    try:
        given = datetime.fromisoformat(since)
    except ValueError:
        raise usage(
            f"--since {since!r} is neither a time nor a duration", "Use 10m, 2h, 1d, or a time such as 2026-11-24T20:00:00Z."
        ) from None
    return _rfc3339(given)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
