"""sluice version: of this command, and of the Sluice that it speaks to."""

from __future__ import annotations

from app.cli.command import Desk, verb
from app.cli.errors import Trouble
from app.version import VERSION


@verb
async def version(desk: Desk) -> None:
    """Show the versions of this command and of the server."""
    try:
        server = (await desk.client.get("/version")).get("version")
    except Trouble as trouble:
        server = None
        desk.out.say(f"{trouble.message.splitlines()[0]}")
    lines = [f"sluice {VERSION}", *([f"server {server} at {desk.client.place.url}"] if server else [])]
    desk.out.result({"version": VERSION, "server": server}, "\n".join(lines), VERSION)
