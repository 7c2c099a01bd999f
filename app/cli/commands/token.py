"""sluice token create, list, revoke."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from app.cli.command import CommandContext, command
from app.cli.help import HelpCommand, HelpGroup
from app.cli.output.console import columns
from app.cli.output.messages import Document, ago

app = typer.Typer(cls=HelpGroup, help="Create, list and revoke access tokens.", no_args_is_help=True)


class Scope(StrEnum):
    READ = "read"
    DEPLOY = "deploy"
    WRITE = "write"
    ADMIN = "admin"


@app.command(cls=HelpCommand)
@command
async def create(
    context: CommandContext,
    name: Annotated[str, typer.Argument(help="Name shown in the history, such as ci or ada.", show_default=False)],
    scope: Annotated[Scope, typer.Option(help="Scope; each one includes those before it.")] = Scope.DEPLOY,
    service: Annotated[
        list[str] | None, typer.Option(help="Service that the token may change, or a pattern such as pay-*; repeatable.")
    ] = None,
    host: Annotated[list[str] | None, typer.Option(help="Host allowed in routes, or *.example.org; repeatable.")] = None,
    path_prefix: Annotated[list[str] | None, typer.Option(help="Path prefix allowed in routes; repeatable.")] = None,
    expires_in: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Lifetime, such as 12h or 90d.", show_default=False)
    ] = None,
) -> None:
    """Create a token and print it. It cannot be shown again."""
    body: dict[str, object] = {"name": name, "scope": scope.value}
    bounds = {"services": service, "hosts": host, "path_prefixes": path_prefix}
    body |= {field: values for field, values in bounds.items() if values}
    if expires_in:
        days = expires_in.removesuffix("d")
        body["expires_in"] = int(days) * 86400 if days.isdecimal() and days != expires_in else expires_in
    made = await context.client.post("/tokens", body)
    context.out.say(f"Token {made['id']} ({name}, scope {scope.value}). It is not shown again:")
    context.out.result(made, made["token"])


@app.command("list", cls=HelpCommand)
@command
async def list_tokens(context: CommandContext) -> None:
    """List the tokens, without their secrets."""
    tokens = await context.client.get_all("/tokens")
    titles = ("ID", "NAME", "SCOPE", "SERVICES", "AGE", "LAST USED", "EXPIRES")
    text = columns(titles, [_row(token) for token in tokens], context.out.width)
    context.out.result(tokens, text, "\n".join(str(t["id"]) for t in tokens))


@app.command(cls=HelpCommand)
@command
async def revoke(context: CommandContext, number: Annotated[int, typer.Argument(metavar="ID", show_default=False)]) -> None:
    """Revoke a token immediately."""
    answer = await context.client.delete(f"/tokens/{number}")
    context.out.result(answer or {"id": number, "revoked": True}, f"Token {number} revoked.", str(number))


def _row(token: Document) -> list[object]:
    services = ", ".join(token.get("services") or []) or "all"
    used = ago(token.get("last_used_at"))
    return [
        token["id"],
        token["name"],
        token["scope"],
        services,
        ago(token.get("created_at")),
        f"{used} ago" if used else "never",
        token.get("expires_at") or "never",
    ]
