"""Waiting responses: until a deployment has ended, the wait ran out, or Sluice stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from sqlmodel import Session

from app.context import AppContext
from app.live.event_feed import until
from app.presenters.rollouts import present_deployment
from app.problems import Problem
from services.rollouts.requests.commands import Asking
from services.rollouts.state.status import TERMINAL, Status
from services.store.tables import Deployment

AGAIN = {"Retry-After": "1"}
_CODE = {
    Status.ABORTED: "deployment_aborted",
    Status.SUPERSEDED: "deployment_superseded",
    Status.PAUSED: "deployment_paused",
}
_ENDS = frozenset({*TERMINAL, Status.PAUSED})
"""Event types that can end a deployment; other events wake no waiting response."""
_LOOK_FOR_CLIENT = 5.0
"""Seconds between two checks that the client is still connected."""


async def respond(
    request: Request, ask: Callable[[Asking[Any]], Awaitable[Any]], wait: float | None, dry_run: bool
) -> Response:
    """Respond to a request that makes a deployment, or with `dry_run` to one that would."""
    sluice: AppContext = request.app.state.sluice
    if dry_run:
        return JSONResponse(asdict(await ask(sluice.dry_run)))
    return await accepted(request, sluice, await ask(sluice.submitter), wait)


async def accepted(request: Request, sluice: AppContext, id: int, wait: float | None) -> Response:
    """Respond to a request that made deployment `id`: 202 immediately, or by `?wait=` (docs/api.md)."""
    headers = {"Location": f"/deployments/{id}"}
    if not wait:
        return JSONResponse(await get_document(sluice, id), 202, headers=headers)
    ended = await wait_for_end(request, sluice, id, wait)
    view = await get_document(sluice, id)
    if not ended:
        detail = f"deployment {id} of {view['service']} is still {view['status']} after {wait:g} s"
        raise Problem("wait_timeout", detail, headers={**headers, **AGAIN}, more={"deployment": view})
    if view["status"] == Status.SUCCEEDED:
        return JSONResponse(view, 200, headers=headers)
    raise unsuccessful(view, headers)


def unsuccessful(view: dict[str, Any], headers: Mapping[str, str], **more: Any) -> Problem:
    """Return the problem 409 for a deployment that was paused or ended without success."""
    status = Status(view["status"])
    because = f" ({view['reason']})" if view["reason"] else ""
    detail = f"deployment {view['id']} of {view['service']} {status}{because}: {view['message']}"
    return Problem(_CODE.get(status, "deployment_failed"), detail, headers=headers, more={"deployment": view, **more})


async def wait_for_end(request: Request, sluice: AppContext, id: int, seconds: float) -> bool:
    """Tell whether the deployment ends within `seconds`.

    Raises Problem: 404 if it does not exist, 503 if Sluice stops.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with sluice.event_feed.subscribe(id, _ENDS) as news:
        news.set()
        while True:
            if news.is_set():  # otherwise a hundred waiting requests would all read at each check of their clients
                news.clear()
                if has_ended(await sluice.store.read(lambda session: find(session, id))):
                    return True
            if sluice.stopping.is_set():
                headers = {"Location": f"/deployments/{id}", **AGAIN}
                detail = "Sluice is stopping; ask again, with the same key if there is one"
                raise Problem("stopping", detail, headers=headers)
            left = end - loop.time()
            if left <= 0 or await request.is_disconnected():
                return False
            await until(news, min(left, _LOOK_FOR_CLIENT))


def has_ended(row: Deployment) -> bool:
    """Tell whether the deployment is terminal or paused by its `failure_action`.

    A pause that a user requested is no end.
    """
    return row.status in TERMINAL or (row.status == Status.PAUSED and row.reason not in (None, "user"))


def find(session: Session, id: int) -> Deployment:
    """Return the deployment. Raises Problem (404) if it does not exist."""
    row = session.get(Deployment, id)
    if row is None:
        raise Problem("unknown_deployment", f"there is no deployment {id}")
    return row


async def get_document(sluice: AppContext, id: int) -> dict[str, Any]:
    """Return the document of the deployment as it is now."""
    presenter_context = sluice.presenter_context
    return await sluice.store.read(lambda session: present_deployment(session, find(session, id), presenter_context))


async def first_of(*events: asyncio.Event, timeout: float) -> None:
    """Wait until one of `events` is set, at most `timeout` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
