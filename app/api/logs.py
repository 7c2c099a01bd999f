"""Logs of an instance or of all instances of a service, as text or, by Accept, as a stream of events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.sse import format_sse_event
from sqlmodel import Session, col, select

from app.api.context import get_app_context
from app.api.params import MAX_INSTANT, Name, Since
from app.api.responses import ALWAYS
from app.api.sse import BYE, END, StreamFormat, stream_response, wants_stream
from app.auth import Reader
from app.problems import Problem, declared, invalid
from services.engine.port import EngineError
from services.instance_logs import GONE, Line, LogFollower, LogSource, read, seconds_of, source_of
from services.masking import Mask
from services.store.tables import Instance, Service

router = APIRouter(tags=["instances"])
MAX_LINES = 10_000
OVERLAP_SECONDS = 1.0
"""Seconds before the last seen line at which a resumed stream begins.

The lines of several instances arrive in no strict order.
"""
EVENT_STREAM = StreamFormat(bounded=False)
TEXT_STREAM = StreamFormat("text/plain", b"", b"", b"", b"", bounded=False)
Tail = Annotated[int, Query(ge=0, le=MAX_LINES, description="number of lines from the end of each instance's log")]
Follow = Annotated[bool, Query(description="continue with new lines")]
Timestamps = Annotated[bool, Query(description="prefix each line with its time, RFC 3339 with nanoseconds")]


def _logs(text: str, *codes: str) -> dict[int | str, dict[str, Any]]:
    event = 'event: line\ndata: {"instance": "web-r4-1", "at": "2026-11-24T20:15:00.123456789Z", "text": "listening"}\n\n'
    content = {
        "text/plain": {"example": text},
        "text/event-stream": {"schema": {"type": "string"}, "example": event},
    }
    response = {"description": "stdout and stderr, line by line", "content": content}
    return declared(*ALWAYS, "engine_error", "engine_unavailable", *codes, also={200: response})


@router.get(
    "/instances/{name}/logs",
    response_class=PlainTextResponse,
    responses=_logs("listening on 8080\n", "unknown_instance", "logs_gone"),
)
async def instance_logs(
    request: Request, _reader: Reader, name: Name, tail: Tail = 200, follow: Follow = False, since: Since = None,
    timestamps: Timestamps = False,
) -> Response:  # fmt: skip
    """Show the log of an instance; a followed log ends with the instance.

    For a removed instance, show the log tail that was kept when it failed.
    """
    sluice = get_app_context(request)

    def read_row(session: Session) -> tuple[LogSource, str | None]:
        row = session.get(Instance, name)
        if row is None:
            raise Problem("unknown_instance", f'instance "{name[:64]}" not found')
        return source_of(session, row), row.log_tail

    source, retained = await sluice.store.read(read_row)
    try:
        await sluice.engine.logs(name, source.container, tail=0)
    except EngineError as error:
        if error.reason != GONE:
            raise
        if retained is None:
            raise Problem("logs_gone", f"the container of {name} was removed, and its log with it") from error
        return PlainTextResponse(_last_lines(retained, tail))

    async def sources() -> Sequence[LogSource]:
        return [source]

    def text(line: Line) -> str:
        return f"{line.at} {line.text}\n" if timestamps else f"{line.text}\n"

    if follow or wants_stream(request):
        return _following(request, sources, text, tail, since, to_the_end=True)
    return _plain(await read(sluice.engine, [source], tail=tail, since=since), text)


@router.get(
    "/services/{name}/logs",
    response_class=PlainTextResponse,
    responses=_logs("web-r4-1 | listening on 8080\n", "unknown_service"),
)
async def service_logs(
    request: Request, _reader: Reader, name: Name, tail: Tail = 200, follow: Follow = False, since: Since = None,
    timestamps: Timestamps = False,
) -> Response:  # fmt: skip
    """Show the logs of all instances of a service that have a container, ordered by time.

    Each line begins with the name of its instance. A followed log has no end: it includes instances that are created
    later.
    """
    sluice = get_app_context(request)
    await sluice.store.read(lambda session: _require_service(session, name))

    async def sources() -> Sequence[LogSource]:
        return await sluice.store.read(lambda session: sources_of(session, name))

    def text(line: Line) -> str:
        prefixed = f"{line.instance} | {line.text}\n"
        return f"{line.at} {prefixed}" if timestamps else prefixed

    if follow or wants_stream(request):
        return _following(request, sources, text, tail, since, to_the_end=False)
    return _plain(await read(sluice.engine, await sources(), tail=tail, since=since), text)


def sources_of(session: Session, service: str) -> list[LogSource]:
    """Return the log sources of a service: its instances that have a container."""
    there = (Instance.service == service, col(Instance.stopped_at).is_(None), Instance.status != "creating")
    rows = session.exec(select(Instance).where(*there).order_by(col(Instance.created_at), Instance.id))
    masks: dict[int, Mask] = {}
    return [source_of(session, row, masks) for row in rows]


def _plain(lines: Sequence[Line], text: Callable[[Line], str]) -> Response:
    return PlainTextResponse(_encoded(lines, text))


def _encoded(lines: Sequence[Line], text: Callable[[Line], str]) -> bytes:
    return "".join(map(text, lines)).encode(errors="replace")


def _following(
    request: Request, sources: Callable[[], Awaitable[Sequence[LogSource]]], text: Callable[[Line], str], tail: int,
    since: float | None, *, to_the_end: bool,
) -> Response:  # fmt: skip
    """Respond with the followed log, as text or, by Accept, as `event: line`.

    The stream ends when the instance ends, the client disconnects or is no longer authenticated, or Sluice stops.
    """
    sluice, as_events = get_app_context(request), wants_stream(request)
    last_seen = _resumed(request) if as_events else None
    if last_seen is not None:
        tail, since = MAX_LINES, last_seen - OVERLAP_SECONDS
    follower = LogFollower(sluice.engine, sluice.notifier, sources, tail=tail, since=since, to_the_end=to_the_end)

    async def messages() -> AsyncGenerator[bytes]:
        async with follower:
            try:
                while (lines := await follower.next()) is not None:
                    yield b"".join(map(_event, lines)) if as_events else _encoded(lines, text)
                yield END if as_events else b""
            except EngineError as error:
                yield BYE if as_events else f"sluice: {error}\n".encode(errors="replace")

    return stream_response(request, messages, EVENT_STREAM if as_events else TEXT_STREAM)


def _event(line: Line) -> bytes:
    return format_sse_event(event="line", id=line.at, data_str=json.dumps(asdict(line), ensure_ascii=False))


def _resumed(request: Request) -> float | None:
    """Return the time in Last-Event-ID: that of the last line that the client received."""
    given = request.headers.get("last-event-id")
    if not given:
        return None
    try:
        seconds = seconds_of(given)
    except (ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < MAX_INSTANT:
        raise invalid("Last-Event-ID", "must be the id of a line")
    return seconds


def _require_service(session: Session, service: str) -> None:
    if session.get(Service, service) is None:
        raise Problem("unknown_service", f'service "{service[:64]}" not found')


def _last_lines(text: str, tail: int) -> str:
    return "".join(StringIO(text).readlines()[-tail:]) if tail else ""
