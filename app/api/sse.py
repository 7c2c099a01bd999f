"""Streaming responses: heartbeats, end at Sluice's stop or the credentials' end, and resumption."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from anyio import CancelScope
from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from app.auth import identify
from app.context import AppContext
from app.problems import invalid

HEARTBEAT_SECONDS = 15.0
"""Silence of a stream after which it sends a heartbeat."""
MAX_STREAM_SECONDS = 600.0
"""Maximum duration of a bounded stream; the client reconnects with Last-Event-ID."""
END = format_sse_event(event="end", data_str="{}")
"""Last message of a stream whose subject has ended."""
BYE = format_sse_event(event="bye", data_str="{}")
"""Last message of a stream to which the client should reconnect."""
Messages = AsyncGenerator[bytes]


@dataclass(frozen=True)
class StreamFormat:
    """The messages and limits that a stream has beside those of its source; an empty message is not sent.

    `unauthenticated` is the last message to a caller whose token or session has ended, `interrupted` the last message
    when Sluice stops. A `bounded` stream ends after MAX_STREAM_SECONDS. The caller is identified again before a message
    or a heartbeat, at most every `identify_seconds`.
    """

    media_type: str = "text/event-stream"
    opening: bytes = format_sse_event(comment="Sluice", retry=1000)
    heartbeat: bytes = format_sse_event(comment="alive")
    unauthenticated: bytes = BYE
    interrupted: bytes = BYE
    bounded: bool = True
    identify_seconds: float = 0.0


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


def stream_response(
    request: Request, source: Callable[[], Messages], stream_format: StreamFormat = StreamFormat()
) -> StreamingResponse:
    """Respond with the messages of `source`, in the given format.

    A source that returns ends the stream; it has sent its own last message. The response is counted while it is open,
    and proxies do not buffer it.
    """
    sluice: AppContext = request.app.state.sluice

    async def messages() -> Messages:
        with sluice.metrics.streams.track_inprogress():
            async with aclosing(_with_heartbeats(request, sluice, source(), stream_format)) as stream:
                async for message in stream:
                    if message:
                        yield message

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(messages(), media_type=stream_format.media_type, headers=headers)


async def _with_heartbeats(
    request: Request, sluice: AppContext, messages: Messages, stream_format: StreamFormat
) -> Messages:
    """Yield a source's messages, heartbeats, and a last message if the source does not end by itself."""
    loop = asyncio.get_running_loop()
    last_sent = identified = loop.time()
    end = last_sent + (MAX_STREAM_SECONDS if stream_format.bounded else math.inf)
    stop = asyncio.create_task(sluice.stopping.wait())
    pending: asyncio.Task[bytes | None] | None = None
    try:
        yield stream_format.opening
        while not sluice.stopping.is_set() and loop.time() < end:
            pending = pending or asyncio.create_task(_next(messages))
            heartbeat_at, identify_at = last_sent + HEARTBEAT_SECONDS, identified + stream_format.identify_seconds
            wake_at = min(heartbeat_at, end, identify_at if stream_format.identify_seconds else math.inf)
            await asyncio.wait({stop, pending}, timeout=wake_at - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            now = loop.time()
            if not pending.done() and now < wake_at:
                continue
            if now >= identify_at:
                if await identify(request) is None:
                    yield stream_format.unauthenticated
                    return
                identified = now
            if pending.done():
                message, pending = pending.result(), None
                if message is None:
                    return
                yield message
                last_sent = now
            elif now >= heartbeat_at:
                yield stream_format.heartbeat
                last_sent = now
        yield stream_format.interrupted
    finally:
        await _close(messages, stop, pending)


async def _next(messages: Messages) -> bytes | None:
    return await anext(messages, None)


async def _close(messages: Messages, *tasks: asyncio.Task[Any] | None) -> None:
    """Cancel the tasks that wait for a source, then close the source, also in a cancelled scope."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    with CancelScope(shield=True):
        await asyncio.gather(*running, return_exceptions=True)
        await messages.aclose()
