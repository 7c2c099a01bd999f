"""Events of one deployment or of all, as a list or a stream, and the audit."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlmodel import Session, col, select

from app.api import schemas
from app.api.context import get_app_context, show
from app.api.examples import AUDIT, EVENT, page_of
from app.api.params import Cursor, Limit, Number, Since, decode_cursor, encode_cursor
from app.api.responses import ALWAYS, read_responses
from app.api.sse import END, resume_after, stream_response, wants_stream
from app.auth import Reader
from app.context import AppContext
from app.live.event_feed import MAX_BATCH, EncodedEvent, encode, newest
from app.presenters.rollouts import present_event
from services.rollouts.requests.lookup import get_deployment
from services.rollouts.state.status import TERMINAL
from services.store.events import EVENTS, since
from services.store.tables import Deployment, Event

router = APIRouter(tags=["events"])
_STREAM = {
    "text/event-stream": {
        "schema": {"type": "string"},
        "example": 'event: instance_serving\ndata: {"id": 812, "message": "web-r4-1 serves"}\nid: 812\n\n',
    }
}
_RESUME = {
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "description": "streams only: start after this event",
            "schema": {"type": "string", "pattern": r"^\d{1,15}$"},
        }
    ]
}


@dataclass(frozen=True)
class _Batch:
    """Events in the order of their ids; `ended` means that the deployment has ended and no more follow."""

    events: list[EncodedEvent]
    ended: bool = False


def _events(*codes: str) -> dict[int | str, dict[str, Any]]:
    responses = read_responses(
        200, schemas.Events, page_of(EVENT), *ALWAYS, *codes, description="a list, or a stream, by Accept"
    )
    responses[200]["content"].update(_STREAM)
    return responses


@router.get("/deployments/{id}/events", responses=_events("unknown_deployment"), openapi_extra=_RESUME)
async def deployment_events(
    request: Request, _reader: Reader, id: Number, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """List the events of a deployment, newest first, or stream them.

    With `Accept: text/event-stream` the events follow in order from the first one on, until the deployment has ended.
    The response is 204 if it has ended and there are no events after Last-Event-ID.
    """
    sluice = get_app_context(request)
    if not wants_stream(request):
        return await _page(request, EVENTS.where(Event.deployment == id), limit, cursor, of=id)
    await sluice.store.read(lambda session: get_deployment(session, id))
    after = resume_after(request) or 0
    if after:
        first = await _batch(sluice, id, after)
        if first.ended and not first.events:
            return Response(status_code=204)  # which ends an EventSource
    return stream_response(request, lambda: _messages(sluice, id, after))


@router.get("/events", responses=_events(), openapi_extra=_RESUME)
async def events(
    request: Request,
    _reader: Reader,
    service: Annotated[str | None, Query(max_length=200, description="only of this service; lists only")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """List all events, newest first, or stream them.

    With `Accept: text/event-stream` the new events follow, or all events after Last-Event-ID.
    """
    sluice = get_app_context(request)
    if not wants_stream(request):
        query = EVENTS
        if service is not None:
            query = query.where(Event.service == service)
        return await _page(request, query, limit, cursor)
    last, after = await sluice.store.read(newest), resume_after(request)
    return stream_response(request, lambda: _messages(sluice, None, last if after is None else min(after, last)))


async def _messages(sluice: AppContext, deployment: int | None, after: int) -> AsyncGenerator[bytes]:
    """Yield the messages of the events after event `after`.

    END follows the events of a deployment that has ended.
    """
    async with sluice.event_feed.subscribe(deployment) as changed:
        while True:
            changed.clear()
            batch = await _batch(sluice, deployment, after)
            if batch.events:
                after = batch.events[-1].id
                yield b"".join(event.line for event in batch.events)  # each chunk costs a pass through all middleware
            if batch.ended:
                yield END
                return
            if len(batch.events) < MAX_BATCH:
                await changed.wait()


async def _batch(sluice: AppContext, deployment: int | None, after: int) -> _Batch:
    if deployment is None:
        return _Batch(await sluice.event_feed.since(after))
    return await sluice.store.read(lambda session: _read_batch(session, deployment, after))


def _read_batch(session: Session, deployment: int, after: int) -> _Batch:
    events = [encode(event) for event in since(session, after, deployment=deployment, limit=MAX_BATCH)]
    if len(events) == MAX_BATCH:
        return _Batch(events)
    status = session.exec(select(Deployment.status).where(col(Deployment.id) == deployment)).first()
    return _Batch(events, ended=status is None or status in TERMINAL)


@router.get("/audit", responses=read_responses(200, schemas.Audit, page_of(AUDIT), *ALWAYS), tags=["audit"])
async def audit(
    request: Request,
    _reader: Reader,
    since: Since = None,
    actor: Annotated[str | None, Query(max_length=200, description="only of this token name or user")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """List the actions of callers, and the refused changes, newest first."""
    query = EVENTS.where(col(Event.actor_kind).is_not(None))
    if since is not None:
        query = query.where(col(Event.at) >= since)
    if actor is not None:
        query = query.where(Event.actor_name == actor)
    return await _page(request, query, limit, cursor, audit=True)


async def _page(
    request: Request, query: Any, limit: int, cursor: str | None, *, of: int | None = None, audit: bool = False
) -> Response:
    """Respond with a page of events; raise Problem (404) if the deployment `of` does not exist."""
    after = decode_cursor(cursor, int)
    if after is not None:
        query = query.where(col(Event.id) < after[0])
    query = query.order_by(col(Event.id).desc()).limit(limit + 1)

    def page(session: Session) -> dict[str, object]:
        if of is not None:
            get_deployment(session, of)
        rows = session.exec(query).all()
        more = encode_cursor(rows[limit - 1].id) if len(rows) > limit else None
        return {"items": [present_event(row, audit=audit) for row in rows[:limit]], "next": more}

    return await show(request, page)
