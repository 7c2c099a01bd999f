"""The same look again and again, when something happened: in place on a terminal, else printed whenever it is another."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from app.cli.client.events import Feed
from app.cli.command import CommandContext
from app.cli.terminal import rendered, takes_colours, write

LOOK_EVERY = 2.0
"""Seconds between two looks when no event comes: requests in flight are no events."""
Look = Callable[[], Awaitable[tuple[Any, str]]]


async def watch(context: CommandContext, look: Look) -> None:
    """For ever; `look` gives the document and its text. Raises Trouble when Sluice stays away."""
    newest = await context.client.get("/events", limit=1)
    after = newest["items"][0]["id"] if newest["items"] else 0
    in_place = sys.stdout.isatty() and not context.out.as_json
    shown: Any = None
    async with Feed(context.client, "/events", after) as feed:
        while True:
            document, text = await look()
            if in_place:
                _redraw(text)
            elif document != shown:
                context.out.line(document, text)
            shown = document
            await feed.next(LOOK_EVERY)


def _redraw(text: str) -> None:
    """From the top left, over what was there, without a moment in which nothing is; what does not fit is left out."""
    room = shutil.get_terminal_size().lines - 1
    shown = rendered(text, colours=takes_colours(sys.stdout))
    lines = "".join(f"{line}\x1b[K\n" for line in shown.split("\n")[:room])
    write(sys.stdout, f"\x1b[H{lines}\x1b[J")
