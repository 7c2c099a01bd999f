"""sluice pause, resume, abort, retry: acting on a deployment."""

from __future__ import annotations

from app.cli.command import CommandContext, command
from app.cli.errors import NOT_SUCCEEDED, CliError, usage
from app.cli.follow import follow_or_detach
from app.cli.input.options import Detach, Target
from app.cli.output.messages import TERMINAL, Document


@command
async def pause(context: CommandContext, target: Target) -> None:
    """Stop between two steps; what serves goes on serving."""
    number = (await find_deployment(context, target, running=True))["id"]
    deployment = await context.client.post(f"/deployments/{number}/pause")
    context.out.result(deployment, f"{deployment['service']}: deployment {number} is paused.", str(number))
    context.out.say(f"Go on with `sluice resume {number}`, or go back with `sluice abort {number}`.")


@command
async def resume(context: CommandContext, target: Target, detach: Detach = False) -> int:
    """Undo a pause, and follow to the end."""
    number = (await find_deployment(context, target, running=True))["id"]
    return await follow_or_detach(context, await context.client.post(f"/deployments/{number}/resume"), detach=detach)


@command
async def abort(context: CommandContext, target: Target, detach: Detach = False) -> int:
    """Go back to what served before, and follow to the end."""
    number = (await find_deployment(context, target, running=True))["id"]
    deployment = await context.client.post(f"/deployments/{number}/abort")
    return await follow_or_detach(context, deployment, detach=detach, good="aborted")


@command
async def retry(context: CommandContext, target: Target, detach: Detach = False) -> int:
    """Do a deployment that did not succeed once more."""
    number = (await find_deployment(context, target))["id"]
    return await follow_or_detach(context, await context.client.post(f"/deployments/{number}/retry"), detach=detach)


async def find_deployment(context: CommandContext, target: str, *, running: bool = False) -> Document:
    """By number, or a service's newest. Raises Trouble; so it does for a service where nothing is `running`."""
    if target.isdigit():
        document: Document = await context.client.get(f"/deployments/{target}")
        return document
    newest: list[Document] = await context.client.get_all("/deployments", most=1, service=target)
    if not newest:
        raise usage(f"{target} has no deployment", "`sluice ps` lists the services.")
    if running and newest[0]["status"] in TERMINAL:
        message = f"nothing is going on at {target}: its newest deployment, {newest[0]['id']}, is {newest[0]['status']}"
        document = {"code": "not_in_that_state", "detail": message}
        raise CliError(message, f"`sluice history {target}` lists them all.", NOT_SUCCEEDED, document)
    return newest[0]
