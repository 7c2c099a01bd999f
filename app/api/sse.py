"""Server-sent events, resumable by Last-Event-ID.

A stream holds no store session between its reads, and ends when Sluice stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import format_sse_event
from sqlmodel import Session, col, select

from app.auth import identify
from app.context import AppContext
from app.live.event_feed import BATCH, EncodedEvent, encode, until
from app.problems import invalid
from services.rollouts.state.status import TERMINAL
from services.store.events import since
from services.store.tables import Deployment

HEARTBEAT_INTERVAL = 15.0
"""Seconds without an event after which a stream sends a heartbeat."""
MAX_DURATION = 600.0
"""Maximum seconds of a stream; the client reconnects with Last-Event-ID."""


@dataclass(frozen=True)
class Batch:
    """Events in the order of their ids; `ended` means that the deployment has ended and no more follow."""

    events: list[EncodedEvent]
    ended: bool = False


def wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def resume_after(request: Request) -> int | None:
    """Return the number in Last-Event-ID; None if there is none. Raises Problem (422) if it is invalid."""
    given = request.headers.get("last-event-id")
    if not given:
        return None
    if not (given.isascii() and given.isdecimal() and len(given) <= 15):
        raise invalid("Last-Event-ID", "must be the id of an event")
    return int(given)


async def follow(sluice: AppContext, deployment: int | None, after: int) -> AsyncIterator[Batch]:
    """Yield the events after event `after`, in batches.

    An empty batch follows each HEARTBEAT_INTERVAL without events. The iteration ends with the deployment, after
    MAX_DURATION, or when Sluice stops.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + MAX_DURATION
    async with sluice.event_feed.subscribe(deployment) as news:
        while not sluice.stopping.is_set() and loop.time() < end:
            news.clear()
            batch = await _batch(sluice, deployment, after)
            if batch.events or batch.ended:
                after = batch.events[-1].id if batch.events else after
                yield batch
            if batch.ended:
                return
            if len(batch.events) == BATCH:
                continue
            waited = loop.time()
            await until(news, min(HEARTBEAT_INTERVAL, max(end - waited, 0)))
            if loop.time() - waited >= HEARTBEAT_INTERVAL:
                yield Batch([])


async def _batch(sluice: AppContext, deployment: int | None, after: int) -> Batch:
    if deployment is None:
        return Batch(await sluice.event_feed.since(after))
    return await sluice.store.read(lambda session: _look(session, deployment, after))


async def sse(request: Request, sluice: AppContext, deployment: int | None, after: int) -> Response:
    """Respond with a stream of events.

    Its last event is `end` if the deployment has ended, or `bye` if Sluice stops or the stream has lasted MAX_DURATION;
    the client should then reconnect. A client that reconnects after `end` gets 204, which ends an EventSource.
    """
    first = await _batch(sluice, deployment, after)
    if first.ended and not first.events and after:
        return Response(status_code=204)

    async def lines() -> AsyncIterator[bytes]:
        yield format_sse_event(comment="Sluice", retry=1000)
        ended = False
        async for batch in follow(sluice, deployment, after):
            if await identify(request) is None:
                break  # the client reconnects and gets 401
            if batch.events:
                yield b"".join(event.line for event in batch.events)  # each chunk costs a pass through all middleware
            elif not batch.ended:
                yield format_sse_event(comment="alive")
            ended = batch.ended
        yield format_sse_event(event="end" if ended else "bye", data_str="{}")

    return streaming(sluice, lines, "text/event-stream")


def streaming(sluice: AppContext, lines: Callable[[], AsyncIterator[bytes]], media_type: str) -> StreamingResponse:
    """Return a streaming response that is counted while it is open and that proxies do not buffer."""

    async def counted() -> AsyncIterator[bytes]:
        with sluice.metrics.streams.track_inprogress():
            async for line in lines():
                yield line

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(counted(), media_type=media_type, headers=headers)


async def until_stopping(sluice: AppContext, read: Callable[[], Awaitable[bytes | None]]) -> AsyncIterator[bytes]:
    """Yield the results of `read` until it returns None or Sluice stops."""
    stop = asyncio.ensure_future(sluice.stopping.wait())
    next_one: asyncio.Future[bytes | None] | None = None
    try:
        while not sluice.stopping.is_set():
            next_one = asyncio.ensure_future(read())
            await asyncio.wait({stop, next_one}, return_when=asyncio.FIRST_COMPLETED)
            if not next_one.done():
                return
            line = next_one.result()
            if line is None:
                return
            yield line
    finally:
        stop.cancel()
        if next_one is not None and not next_one.done():
            next_one.cancel()
            await asyncio.gather(next_one, return_exceptions=True)


def _look(session: Session, deployment: int, after: int) -> Batch:
    events = [encode(event) for event in since(session, after, deployment=deployment, limit=BATCH)]
    if len(events) == BATCH:
        return Batch(events)
    status = session.exec(select(Deployment.status).where(col(Deployment.id) == deployment)).first()
    return Batch(events, ended=status is None or status in TERMINAL)
