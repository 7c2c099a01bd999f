"""sluice pause, resume, abort, retry: actions on a deployment."""

from __future__ import annotations

from app.cli.command import CommandContext, command
from app.cli.errors import NOT_SUCCEEDED, CliError, usage
from app.cli.follow import follow_or_detach
from app.cli.input.options import Target
from app.cli.output.messages import TERMINAL, Document
from app.cli.waiting import Waiting


@command
async def pause(context: CommandContext, target: Target) -> None:
    """Pause a deployment between two steps; serving instances keep serving."""
    number = (await find_deployment(context, target, running=True))["id"]
    deployment = await context.client.post(f"/deployments/{number}/pause")
    context.out.result(deployment, f"{deployment['service']}: deployment {number} paused.", str(number))
    context.out.say(f"Continue with `sluice resume {number}`, or roll back with `sluice abort {number}`.")


@command
async def resume(context: CommandContext, target: Target, *, waiting: Waiting) -> int:
    """Resume a paused deployment, and follow it to its end."""
    number = (await find_deployment(context, target, running=True))["id"]
    return await follow_or_detach(context, await context.client.post(f"/deployments/{number}/resume"), waiting)


@command
async def abort(context: CommandContext, target: Target, *, waiting: Waiting) -> int:
    """Abort a deployment, restore the state before it, and follow it to its end."""
    number = (await find_deployment(context, target, running=True))["id"]
    deployment = await context.client.post(f"/deployments/{number}/abort")
    return await follow_or_detach(context, deployment, waiting, good="aborted")


@command
async def retry(context: CommandContext, target: Target, *, waiting: Waiting) -> int:
    """Retry a failed deployment, and follow it to its end."""
    number = (await find_deployment(context, target))["id"]
    return await follow_or_detach(context, await context.client.post(f"/deployments/{number}/retry"), waiting)


async def find_deployment(context: CommandContext, target: str, *, running: bool = False) -> Document:
    """Return a deployment by its number, or the newest deployment of a service.

    With `running`, raises CliError if the service's newest deployment has ended. Raises CliError if there is none.
    """
    if target.isdigit():
        document: Document = await context.client.get(f"/deployments/{target}")
        return document
    newest: list[Document] = await context.client.get_all("/deployments", most=1, service=target)
    if not newest:
        await context.client.get(f"/services/{target}")  # refuses an unknown name
        raise usage(f"{target} has no deployment", "`sluice ps` lists the services.")
    if running and newest[0]["status"] in TERMINAL:
        message = (
            f"{target} has no deployment in progress (latest: {newest[0]['id']}, {newest[0]['status'].replace('_', ' ')})"
        )
        document = {"code": "not_in_that_state", "detail": message}
        raise CliError(message, f"`sluice history {target}` lists all deployments.", NOT_SUCCEEDED, document)
    return newest[0]
