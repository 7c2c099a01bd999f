"""Follow a deployment to its end, through restarts of Sluice; Ctrl-C leaves it running."""

from __future__ import annotations

import asyncio

from app.cli.client.events import Event, Feed
from app.cli.command import Desk
from app.cli.errors import INTERRUPTED, UNREACHABLE, Trouble
from app.cli.output.live_display import display_for
from app.cli.output.messages import Document, end_of, is_over

_LOOK_EVERY, _DRAIN_LOOK_EVERY = 5.0, 1.0
"""Seconds between two looks when no event comes: in-flight counts are no events, and the last event might be missed."""


async def settle(desk: Desk, deployment: Document, *, detach: bool, good: str = "succeeded") -> int:
    """After a deployment was asked for: follow it unless detached, say how it ended. The exit code; `good`: a status that
    is what was wanted."""
    if detach and not is_over(deployment):
        number, service = deployment["id"], deployment["service"]
        desk.out.result(deployment, f"{service}: deployment {number} is accepted.", str(number))
        desk.out.say(f"Follow it with `sluice status {number} --follow`.")
        return 0
    return await finish(desk, await follow(desk, deployment), good)


async def finish(desk: Desk, deployment: Document, good: str = "succeeded") -> int:
    """Say how it ended."""
    end = end_of(deployment, await url_of(desk, deployment))
    desk.out.result(deployment, end.sentence, str(deployment["id"]))
    if end.advice and deployment["status"] != good:
        desk.out.say(end.advice)
    return 0 if deployment["status"] == good else end.exit_code


async def follow(desk: Desk, deployment: Document) -> Document:
    """Its last state. Raises Trouble when interrupted, or when Sluice stays away."""
    number = deployment["id"]
    if is_over(deployment):
        return deployment
    back = f"Come back with `sluice status {number} --follow`, or undo it with `sluice abort {number}`."
    try:
        return await _watch(desk, number)
    except asyncio.CancelledError:
        message = f"interrupted; deployment {number} of {deployment['service']} goes on"
        raise Trouble(message, back, INTERRUPTED, {**deployment, "code": "interrupted"}) from None
    except Trouble as trouble:
        if trouble.exit_code == UNREACHABLE:
            trouble.advice = f"Deployment {number} goes on once Sluice is back. {back}"
        raise


async def _watch(desk: Desk, number: int) -> Document:
    with display_for(desk.out) as display:
        desk.client.on_away = display.away
        async with Feed(desk.client, f"/deployments/{number}/events") as feed:
            patience = 0.0
            while True:
                events = await feed.next(patience)
                deployment: Document = await desk.client.get(f"/deployments/{number}")
                if is_over(deployment):
                    events += await _rest(feed, deployment["status"], events)
                display.update(deployment, events)
                if is_over(deployment):
                    return deployment
                drains = any(instance["status"] == "draining" for instance in deployment.get("instances") or [])
                patience = _DRAIN_LOOK_EVERY if drains else _LOOK_EVERY


async def _rest(feed: Feed, status: str, heard: list[Event]) -> list[Event]:
    """The state may be ahead of the events: hear them out up to the one that tells the end, for at most a second."""
    rest: list[Event] = []
    while not any(event.type == status for event in [*heard, *rest]):
        more = await feed.next(1.0)
        if not more:
            break
        rest += more
    return rest


async def url_of(desk: Desk, deployment: Document) -> str | None:
    """Where the service answers now: worth saying after a success, not worth failing for."""
    if deployment["status"] != "succeeded" or deployment["kind"] == "remove" or desk.out.as_json or desk.out.quiet:
        return None
    try:
        service = await desk.client.get(f"/services/{deployment['service']}")
    except Trouble:
        return None
    url = service.get("url")
    return str(url) if url else None
