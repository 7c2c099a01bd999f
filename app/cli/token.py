"""sluice token create, list, revoke."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from app.cli.narration import ago
from app.cli.output import columns
from app.cli.verb import Desk, verb

app = typer.Typer(help="Who may do what: make, list and revoke tokens.", no_args_is_help=True)


class Scope(StrEnum):
    READ = "read"
    DEPLOY = "deploy"
    WRITE = "write"
    ADMIN = "admin"


@app.command()
@verb
async def create(
    desk: Desk,
    name: Annotated[str, typer.Argument(help="Whose it is, such as ci; shown in the history.", show_default=False)],
    scope: Annotated[Scope, typer.Option(help="What it may do; each includes those before it.")] = Scope.DEPLOY,
) -> None:
    """Make a token. It is shown this once."""
    made = await desk.client.post("/tokens", {"name": name, "scope": scope.value})
    desk.out.say(f"Token {made['id']}, {name}, may {scope.value}. It is not shown again:")
    desk.out.result(made, made["token"])


@app.command("list")
@verb
async def list_tokens(desk: Desk) -> None:
    """List the tokens, without their secrets."""
    tokens = await desk.client.get_all("/tokens")
    rows = [
        (t["id"], t["name"], t["scope"], ago(t.get("created_at")), ago(t.get("last_used_at")), ago(t.get("revoked_at")))
        for t in tokens
    ]
    text = columns(("ID", "NAME", "SCOPE", "AGE", "LAST USED", "REVOKED"), rows)
    desk.out.result(tokens, text, "\n".join(str(t["id"]) for t in tokens))


@app.command()
@verb
async def revoke(desk: Desk, number: Annotated[int, typer.Argument(metavar="ID", show_default=False)]) -> None:
    """Make a token worthless at once."""
    answer = await desk.client.delete(f"/tokens/{number}")
    desk.out.result(answer or {"id": number, "revoked": True}, f"Token {number} is revoked.", str(number))
