"""sluice sign-in: a one-time link to the dashboard."""

from __future__ import annotations

from app.cli.command import Desk, verb


@verb
async def sign_in(desk: Desk) -> None:
    """Print a link that opens the dashboard once."""
    made = await desk.client.post("/sign-in-links")
    desk.out.result(made, made["url"])
    desk.out.say("It works once; open it soon.")
