"""sluice scale, rollback, restart, rm: deployments without a new version."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli.command import CommandContext, command
from app.cli.errors import NOT_SUCCEEDED, CliError
from app.cli.follow import follow_or_detach
from app.cli.input.options import Service
from app.cli.waiting import Waiting


@command
async def scale(
    context: CommandContext,
    service: Service,
    replicas: Annotated[
        int, typer.Argument(min=0, max=100, help="Number of instances; 0 stops the service.", show_default=False)
    ],
    *,
    waiting: Waiting,
) -> int:
    """Change the number of a service's instances."""
    deployment = await context.client.post(f"/services/{service}/scale", {"replicas": replicas})
    return await follow_or_detach(context, deployment, waiting)


@command
async def rollback(
    context: CommandContext,
    service: Service,
    to_revision: Annotated[
        int | None,
        typer.Option(
            "--to-revision",
            "--to",
            help="Revision to restore. Default: the latest earlier one that served.",
            show_default=False,
        ),
    ] = None,
    *,
    waiting: Waiting,
) -> int:
    """Roll back to an earlier revision; the number of instances stays."""
    body = {} if to_revision is None else {"to_revision": to_revision}
    return await follow_or_detach(context, await context.client.post(f"/services/{service}/rollback", body), waiting)


@command
async def restart(context: CommandContext, service: Service, *, waiting: Waiting) -> int:
    """Replace all instances of a service without a new revision."""
    return await follow_or_detach(context, await context.client.post(f"/services/{service}/restart", {}), waiting)


@command
async def rm(
    context: CommandContext,
    service: Service,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    *,
    waiting: Waiting,
) -> int:
    """Drain, stop and remove a service. Its history stays."""
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Remove {service} and all its instances?", err=True):
        raise CliError(f"{service} was not removed", exit_code=NOT_SUCCEEDED)
    return await follow_or_detach(context, await context.client.delete(f"/services/{service}"), waiting)
