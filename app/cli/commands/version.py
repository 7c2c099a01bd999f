"""sluice version: versions of this command and of the server."""

from __future__ import annotations

from app.cli.command import CommandContext, command
from app.cli.errors import CliError
from app.version import VERSION


@command
async def version(context: CommandContext) -> None:
    """Show the versions of this command and of the server."""
    try:
        server = (await context.client.get("/version")).get("version")
    except CliError as error:
        server = None
        context.out.say(f"{error.message.splitlines()[0]}")
    lines = [f"sluice {VERSION}", *([f"server {server} at {context.client.place.url}"] if server else [])]
    context.out.result({"version": VERSION, "server": server}, "\n".join(lines), VERSION)
