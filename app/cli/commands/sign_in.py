"""sluice sign-in: a one-time link to the dashboard."""

from __future__ import annotations

from app.cli.command import CommandContext, command


@command
async def sign_in(context: CommandContext) -> None:
    """Print a link that signs in to the dashboard once."""
    made = await context.client.post("/sign-in-links")
    context.out.result(made, made["url"])
    context.out.say("The link works once, for half an hour.")
