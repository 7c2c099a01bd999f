"""Repeated display of a view: redrawn in place on a terminal, else printed when its content changed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from app.cli.client.events import Feed
from app.cli.command import CommandContext
from app.cli.terminal import rendered, takes_colours, write

UPDATE_INTERVAL = 2.0
"""Seconds between two updates without an event: changes of in-flight counts are no events."""
Look = Callable[[], Awaitable[tuple[Any, str]]]


async def watch(context: CommandContext, read_view: Look) -> None:
    """Update the view forever; `read_view` returns its document and its text.

    Raises CliError if Sluice stays unavailable.
    """
    newest = await context.client.get("/events", limit=1)
    after = newest["items"][0]["id"] if newest["items"] else 0
    in_place = sys.stdout.isatty() and not context.out.structured
    shown: Any = None
    async with Feed(context.client, "/events", after) as feed:
        while True:
            document, text = await read_view()
            if in_place:
                _redraw(text)
            elif document != shown:
                context.out.line(document, text)
            shown = document
            await feed.next(UPDATE_INTERVAL)


def _redraw(text: str) -> None:
    """Redraw from the top left without clearing the screen first; text that does not fit is omitted."""
    room = shutil.get_terminal_size().lines - 1
    shown = rendered(text, colours=takes_colours(sys.stdout))
    lines = "".join(f"{line}\x1b[K\n" for line in shown.split("\n")[:room])
    write(sys.stdout, f"\x1b[H{lines}\x1b[J")
