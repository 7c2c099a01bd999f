"""sluice gateway status, upgrade."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.command import CommandContext, command
from app.cli.errors import NOT_SUCCEEDED
from app.cli.help import HelpCommand, HelpGroup
from app.cli.output.console import pairs
from app.cli.output.messages import Document

app = typer.Typer(
    cls=HelpGroup, help="Show the gateway's status, and upgrade it without losing a request.", no_args_is_help=True
)


@app.command(cls=HelpCommand)
@command
async def status(context: CommandContext) -> int:
    """Show whether the gateway answers, whether it is up to date, and its old workers."""
    state = await context.client.get("/gateway")
    context.out.result(state, _sheet(state), "up to date" if not state["outdated"] else "outdated")
    return 0 if state["answers"] else NOT_SUCCEEDED


@app.command(cls=HelpCommand)
@command
async def upgrade(
    context: CommandContext,
    force: Annotated[bool, typer.Option("--force", help="Replace the gateway even if it is up to date.")] = False,
) -> None:
    """Replace the running gateway by a new one without interrupting requests."""
    made = await context.client.post("/gateway/upgrade", {"force": force})
    if made["status"] == "unchanged":
        context.out.result(made, "The gateway is up to date; --force replaces it anyway.", "unchanged")
        return
    new, old = made["container_id"][:12], made["previous_id"][:12]
    text = f"The gateway {new} took over in {made['seconds']:.1f} s; {old} finishes its requests and is then removed."
    context.out.result(made, text, new)


def _sheet(state: Document) -> str:
    old = [f"pid {each['pid']}, for {each['replaced_for']:.0f} s" for each in state["old_workers"]]
    return pairs(
        [
            ("gateway", "answers" if state["answers"] else "does not answer"),
            ("version", state["version"]),
            ("uptime", f"{state['uptime']:.0f} s" if state["uptime"] is not None else None),
            ("image", state["image"]),
            ("outdated", f"{state['outdated']}: sluice gateway upgrade" if state["outdated"] else "no"),
            ("upgrading", "yes" if state["upgrading"] else None),
            ("old workers", "; ".join(old)),
        ]
    )
