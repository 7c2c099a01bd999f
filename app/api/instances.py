"""Instances, and what they write to their logs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from sqlmodel import Session, col, or_, select

from app.api import shapes
from app.api.answers import ALWAYS, shows
from app.api.calls import sluice_of
from app.api.examples import INSTANCE, page_of
from app.api.parameters import Cursor, Limit, Name, Since, cursor_of, place
from app.api.streams import streaming, until_stopping
from app.auth import Reader
from app.problems import Problem, declared
from app.sluice import Sluice
from services.engine.port import EngineError
from services.rollouts.views import instance_view, instance_views
from services.store.tables import Instance

router = APIRouter(prefix="/instances", tags=["instances"])
_AS_TEXT = {"X-Content-Type-Options": "nosniff"}
"""Whatever an application writes to its log, a browser must not take it for a page."""
_LOGS = declared(
    *ALWAYS,
    "unknown_instance",
    "logs_gone",
    "engine_error",
    "engine_unavailable",
    also={200: {"description": "both streams, line by line", "content": {"text/plain": {"example": "listening on 8080\n"}}}},
)


@router.get("", responses=shows(200, shapes.Instances, page_of(INSTANCE), *ALWAYS))
async def instances(
    request: Request,
    _reader: Reader,
    service: Annotated[str | None, Query(max_length=200, description="of this service alone")] = None,
    status: Annotated[shapes.InstanceStatus | None, Query(description="without it, those that exist")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Newest first, without log tails. `?status=stopped` and `?status=failed` also show those that are gone."""
    sluice = sluice_of(request)
    frame, after = sluice.frame, place(cursor, (int, float), str)
    query = select(Instance).order_by(col(Instance.created_at).desc(), col(Instance.id)).limit(limit + 1)
    query = query.where(Instance.status == status if status is not None else col(Instance.stopped_at).is_(None))
    if service is not None:
        query = query.where(Instance.service == service)
    if after is not None:
        at, id = after
        query = query.where(or_(col(Instance.created_at) < at, (col(Instance.created_at) == at) & (col(Instance.id) > id)))

    def page(session: Session) -> dict[str, object]:
        rows = session.exec(query).all()
        more = cursor_of(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None
        return {"items": instance_views(session, rows[:limit], frame), "next": more}

    return JSONResponse(await sluice.store.read(page))


@router.get("/{name}", responses=shows(200, shapes.Instance, INSTANCE, *ALWAYS, "unknown_instance"))
async def instance(request: Request, _reader: Reader, name: Name) -> Response:
    """With its log tail, when it failed."""
    sluice = sluice_of(request)
    frame = sluice.frame
    view = await sluice.store.read(lambda session: instance_view(session, _find(session, name), frame))
    return JSONResponse(view)


@router.get("/{name}/logs", response_class=PlainTextResponse, responses=_LOGS)
async def logs(
    request: Request,
    _reader: Reader,
    name: Name,
    tail: Annotated[int, Query(ge=0, le=10_000, description="the last so many lines")] = 200,
    follow: Annotated[bool, Query(description="and those that come, until the instance ends")] = False,
    since: Since = None,
) -> Response:
    """Of one that is gone: the tail that was kept when it failed."""
    sluice = sluice_of(request)
    row = await sluice.store.read(lambda session: _find(session, name))
    try:
        text = await sluice.engine.logs(row.id, tail=tail if not follow else 0, since=since)
    except EngineError as error:
        if error.reason != "instance_gone":
            raise
        if row.log_tail is None:
            raise Problem("logs_gone", f"the container of {row.id} has gone, and its log with it") from error
        return PlainTextResponse(_last_lines(row.log_tail, tail), headers=_AS_TEXT)
    if not follow:
        return PlainTextResponse(text, headers=_AS_TEXT)
    return streaming(sluice, lambda: _follow(sluice, row.id, tail, since), "text/plain")


async def _follow(sluice: Sluice, instance: str, tail: int, since: float | None) -> AsyncIterator[bytes]:
    """Until the instance ends, the client goes, or Sluice stops."""
    async with aclosing(_lines(sluice, instance, tail, since)) as lines:
        try:
            async for line in until_stopping(sluice, lambda: _next(lines)):
                yield line
        except EngineError as error:
            yield f"sluice: {error}\n".encode(errors="replace")


async def _next(lines: AsyncGenerator[bytes]) -> bytes | None:
    return await anext(lines, None)


async def _lines(sluice: Sluice, instance: str, tail: int, since: float | None) -> AsyncGenerator[bytes]:
    source = sluice.engine.follow_logs(instance, tail=tail, since=since)
    try:
        async for line in source:
            yield f"{line}\n".encode(errors="replace")
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


def _last_lines(text: str, tail: int) -> str:
    return "".join(text.splitlines(keepends=True)[-tail:]) if tail else ""


def _find(session: Session, id: str) -> Instance:
    row = session.get(Instance, id)
    if row is None:
        raise Problem("unknown_instance", f'there is no instance "{id[:64]}"')
    return row
