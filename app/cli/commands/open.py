"""sluice open: the dashboard's page of a service or a deployment."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.command import CommandContext, command
from app.cli.completion import numbers_and_services


@command
async def open_page(
    context: CommandContext,
    target: Annotated[
        str | None,
        typer.Argument(
            help="Service, or number of a deployment. Default: the overview.",
            show_default=False,
            autocompletion=numbers_and_services,
        ),
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", "-p", help="Print the URL only.")] = False,
) -> None:
    """Open the dashboard's page of a service or a deployment, and print its URL."""
    page = "/ui/"
    if target is not None and target.isdigit():
        page = (await context.client.get(f"/deployments/{target}"))["links"]["page"]
    elif target is not None:
        page = f"/ui/services/{(await context.client.get(f'/services/{target}'))['name']}"
    url = f"{context.client.place.url}{page}"
    context.out.result({"url": url}, url)
    if sys.stdout.isatty() and not only_print and not context.out.structured:
        typer.launch(url)
        context.out.say("If the browser is not signed in: `sluice sign-in` prints a one-time link.")
