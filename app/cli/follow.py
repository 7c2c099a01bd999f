"""Following a deployment to its end, through restarts of Sluice; Ctrl-C leaves the deployment running."""

from __future__ import annotations

import asyncio
from pathlib import Path

from app.cli.client.events import Event, Feed
from app.cli.command import CommandContext
from app.cli.errors import INTERRUPTED, NOT_SUCCEEDED, UNREACHABLE, CliError
from app.cli.output.live_display import display_for
from app.cli.output.messages import Document, end_of, is_over
from app.cli.waiting import Waiting

_POLL_INTERVAL, _DRAIN_POLL_INTERVAL = 5.0, 1.0
"""Seconds between two requests for the deployment's state without an event.

The second value applies while an instance drains, because in-flight counts are no events. The first one covers a
missed last event.
"""


async def follow_or_detach(context: CommandContext, deployment: Document, waiting: Waiting, good: str = "succeeded") -> int:
    """Follow a new deployment unless detached, print how it ended, and return the exit code.

    `good`: the status that counts as success.
    """
    if waiting.detach and not is_over(deployment):
        number, service = deployment["id"], deployment["service"]
        context.out.result(deployment, f"{service}: deployment {number} accepted.", str(number))
        context.out.say(f"Follow it with `sluice status {number} --follow`.")
        return 0
    return await finish(context, await follow(context, deployment, waiting.timeout), good)


async def finish(context: CommandContext, deployment: Document, good: str = "succeeded") -> int:
    """Print how the deployment ended, and return the exit code; `good` is the status of success."""
    end = end_of(deployment, await url_of(context, deployment))
    context.out.result(deployment, end.sentence, str(deployment["id"]))
    if end.advice and deployment["status"] != good:
        context.out.say(end.advice)
    if deployment.get("reason") == "image_pull_failed" and _has_dockerfile():
        context.out.say("There is a Dockerfile here: `sluice deploy --build .` builds the image from it.")
    return 0 if deployment["status"] == good else end.exit_code


def _has_dockerfile() -> bool:
    return Path("Dockerfile").is_file()


async def follow(context: CommandContext, deployment: Document, timeout: float | None = None) -> Document:
    """Return the deployment's final state.

    Raises CliError when interrupted, after `timeout` seconds, or if Sluice stays unavailable.
    """
    number = deployment["id"]
    if is_over(deployment):
        return deployment
    back = f"Follow it again with `sluice status {number} --follow`, or undo it with `sluice abort {number}`."
    try:
        async with asyncio.timeout(timeout):
            return await _watch(context, number)
    except TimeoutError:
        message = f"timed out; deployment {number} of {deployment['service']} continues"
        raise CliError(message, back, NOT_SUCCEEDED, {**deployment, "code": "wait_timeout"}) from None
    except asyncio.CancelledError:
        message = f"interrupted; deployment {number} of {deployment['service']} continues"
        raise CliError(message, back, INTERRUPTED, {**deployment, "code": "interrupted"}) from None
    except CliError as error:
        if error.exit_code == UNREACHABLE:
            error.advice = f"Deployment {number} continues when Sluice is back. {back}"
        raise


async def _watch(context: CommandContext, number: int) -> Document:
    with display_for(context.out) as display:
        context.client.on_availability_change = display.show_unavailable
        async with Feed(context.client, f"/deployments/{number}/events") as feed:
            patience = 0.0
            while True:
                events = await feed.next(patience)
                deployment: Document = await context.client.get(f"/deployments/{number}")
                if is_over(deployment):
                    events += await _rest(feed, deployment["status"], events)
                display.update(deployment, events)
                if is_over(deployment):
                    return deployment
                drains = any(instance["status"] == "draining" for instance in deployment.get("instances") or [])
                patience = _DRAIN_POLL_INTERVAL if drains else _POLL_INTERVAL


async def _rest(feed: Feed, status: str, heard: list[Event]) -> list[Event]:
    """Return the remaining events up to the one of the final `status`.

    The state may be ahead of the events. Waits at most 1 s for the next of them.
    """
    rest: list[Event] = []
    while not any(event.type == status for event in [*heard, *rest]):
        more = await feed.next(1.0)
        if not more:
            break
        rest += more
    return rest


async def url_of(context: CommandContext, deployment: Document) -> str | None:
    """Return the URL of the service after a success, None otherwise; a failure to get it is ignored."""
    if deployment["status"] != "succeeded" or deployment["kind"] == "remove" or context.out.structured or context.out.quiet:
        return None
    try:
        service = await context.client.get(f"/services/{deployment['service']}")
    except CliError:
        return None
    url = service.get("url")
    return str(url) if url else None
