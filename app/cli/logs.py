"""sluice logs: what instances write, of one or of a whole service, as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from app.cli.client import Away
from app.cli.narration import GONE, Document
from app.cli.options import Writing
from app.cli.trouble import USAGE, Trouble, usage
from app.cli.verb import Desk, verb

_LOOK_EVERY = 1.0
_REST = 1000
"""The most lines that are caught up on, of an instance that came while following or after a stream broke off."""
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
    if not instances and not follow:
        raise Trouble(f"{target} has no instance", "`sluice ps --all` lists those that have gone; their logs are by id.")
    writer = _Writer(desk, many=service is not None)
    if not follow:
        for instance in instances:
            await _print(desk, writer, instance, tail, moment, follow=False)
        return
    await _follow(desk, writer, instances, service, tail, moment)


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
            before = typer.style(f"{instance} | ", fg=colour)
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


async def _follow(
    desk: Desk, writer: _Writer, instances: list[Document], service: str | None, tail: int, moment: str | None
) -> None:
    """All at once. Of a service for ever, with whatever instance comes; of one instance to its end."""
    seen: set[str] = set()
    async with asyncio.TaskGroup() as group:
        while True:
            for instance in instances:
                if instance["id"] not in seen:
                    group.create_task(_print(desk, writer, instance, tail if not seen else _REST, moment, follow=True))
            seen |= {instance["id"] for instance in instances}
            if service is None:
                return
            await asyncio.sleep(_LOOK_EVERY)
            instances = await _living(desk, service)


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
            await asyncio.sleep(_LOOK_EVERY)
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
