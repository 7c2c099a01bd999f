"""Responses to requests that create a deployment: the deployment, its end by `?wait=`, or a preview."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from app.api.long_poll import LongPoll
from app.context import AppContext
from app.presenters.rollouts import present_deployment
from app.problems import Problem
from services.rollouts.requests.command import Command, RequestContext
from services.rollouts.requests.lookup import get_deployment
from services.rollouts.state.status import TERMINAL, Status
from services.store.tables import Deployment

_CODES = {
    Status.ABORTED: "deployment_aborted",
    Status.SUPERSEDED: "deployment_superseded",
    Status.PAUSED: "deployment_paused",
}
_END_EVENTS = frozenset({*TERMINAL, Status.PAUSED})
"""Event types that can end a deployment; other events wake no waiting response."""


async def respond(
    request: Request, command: Command, context: RequestContext, wait: float | None, dry_run: bool
) -> Response:
    """Submit the command and respond with its deployment, or with `dry_run` respond with its preview."""
    sluice: AppContext = request.app.state.sluice
    if dry_run:
        return JSONResponse(asdict(await sluice.dry_run.preview(command, context.by)))
    id = await sluice.submitter.submit(command, context)
    return await DeploymentPoll(sluice, id).respond(request, wait)


class DeploymentPoll(LongPoll):
    """A deployment. A pause by its `failure_action` is an end; a pause that a user requested is none."""

    kind = "deployment"
    stopping = "Sluice is stopping; retry with the same Idempotency-Key, if any"

    async def document(self) -> dict[str, Any]:
        return await deployment_document(self._sluice, self._id)

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[asyncio.Event]:
        async with self._sluice.event_feed.subscribe(self._id, _END_EVENTS) as changed:
            changed.set()
            yield changed

    async def has_ended(self, changed: asyncio.Event) -> bool:
        if not changed.is_set():  # otherwise a hundred waiting responses would all read at each check of their clients
            return False
        changed.clear()
        return has_ended(await self._sluice.store.read(lambda session: get_deployment(session, self._id)))

    def failure(self, document: Mapping[str, Any], headers: Mapping[str, str], **more: Any) -> Problem:
        status = Status(document["status"])
        because = f" ({document['reason']})" if document["reason"] else ""
        detail = f"deployment {self._id} of {document['service']} {status}{because}: {document['message']}"
        code = _CODES.get(status, "deployment_failed")
        return Problem(code, detail, headers=headers, more={"deployment": document, **more})


def has_ended(row: Deployment) -> bool:
    """Tell whether the deployment is terminal or paused by its `failure_action`."""
    return row.status in TERMINAL or (row.status == Status.PAUSED and row.reason not in (None, "user"))


async def deployment_document(sluice: AppContext, id: int) -> dict[str, Any]:
    """Return the document of the deployment as it is now. Raises RequestError 404 `unknown_deployment`."""
    context = sluice.presenter_context
    return await sluice.store.read(lambda session: present_deployment(session, get_deployment(session, id), context))
