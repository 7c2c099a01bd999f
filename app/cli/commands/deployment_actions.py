"""sluice pause, resume, abort, retry: acting on a deployment."""

from __future__ import annotations

from app.cli.command import Desk, verb
from app.cli.errors import NOT_SUCCEEDED, Trouble, usage
from app.cli.follow import settle
from app.cli.input.options import Detach, Target
from app.cli.output.messages import TERMINAL, Document


@verb
async def pause(desk: Desk, target: Target) -> None:
    """Stop between two steps; what serves goes on serving."""
    number = (await find_deployment(desk, target, running=True))["id"]
    deployment = await desk.client.post(f"/deployments/{number}/pause")
    desk.out.result(deployment, f"{deployment['service']}: deployment {number} is paused.", str(number))
    desk.out.say(f"Go on with `sluice resume {number}`, or go back with `sluice abort {number}`.")


@verb
async def resume(desk: Desk, target: Target, detach: Detach = False) -> int:
    """Undo a pause, and follow to the end."""
    number = (await find_deployment(desk, target, running=True))["id"]
    return await settle(desk, await desk.client.post(f"/deployments/{number}/resume"), detach=detach)


@verb
async def abort(desk: Desk, target: Target, detach: Detach = False) -> int:
    """Go back to what served before, and follow to the end."""
    number = (await find_deployment(desk, target, running=True))["id"]
    deployment = await desk.client.post(f"/deployments/{number}/abort")
    return await settle(desk, deployment, detach=detach, good="aborted")


@verb
async def retry(desk: Desk, target: Target, detach: Detach = False) -> int:
    """Do a deployment that did not succeed once more."""
    number = (await find_deployment(desk, target))["id"]
    return await settle(desk, await desk.client.post(f"/deployments/{number}/retry"), detach=detach)


async def find_deployment(desk: Desk, target: str, *, running: bool = False) -> Document:
    """By number, or a service's newest. Raises Trouble; so it does for a service where nothing is `running`."""
    if target.isdigit():
        document: Document = await desk.client.get(f"/deployments/{target}")
        return document
    newest: list[Document] = await desk.client.get_all("/deployments", most=1, service=target)
    if not newest:
        raise usage(f"{target} has no deployment", "`sluice ps` lists the services.")
    if running and newest[0]["status"] in TERMINAL:
        message = f"nothing is going on at {target}: its newest deployment, {newest[0]['id']}, is {newest[0]['status']}"
        document = {"code": "not_in_that_state", "detail": message}
        raise Trouble(message, f"`sluice history {target}` lists them all.", NOT_SUCCEEDED, document)
    return newest[0]
