"""Instances and their status."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlmodel import Session, col, or_

from app.api import schemas
from app.api.context import get_app_context, show
from app.api.examples import INSTANCE, page_of
from app.api.params import Cursor, Limit, Name, decode_cursor, encode_cursor
from app.api.responses import ALWAYS, read_responses
from app.auth import Reader
from app.presenters.rollouts import INSTANCES, present_instance, present_instances
from app.problems import Problem
from services.store.tables import Instance

router = APIRouter(prefix="/instances", tags=["instances"])


@router.get("", responses=read_responses(200, schemas.Instances, page_of(INSTANCE), *ALWAYS))
async def instances(
    request: Request,
    _reader: Reader,
    service: Annotated[str | None, Query(max_length=200, description="only of this service")] = None,
    status: Annotated[schemas.InstanceStatus | None, Query(description="default: all except removed ones")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """List instances, newest first, without log tails.

    `?status=stopped` and `?status=failed` list removed instances too.
    """
    presenter_context, after = get_app_context(request).presenter_context, decode_cursor(cursor, float, str)
    query = INSTANCES.order_by(col(Instance.created_at).desc(), col(Instance.id)).limit(limit + 1)
    query = query.where(Instance.status == status if status is not None else col(Instance.stopped_at).is_(None))
    if service is not None:
        query = query.where(Instance.service == service)
    if after is not None:
        at, id = after
        query = query.where(or_(col(Instance.created_at) < at, (col(Instance.created_at) == at) & (col(Instance.id) > id)))

    def page(session: Session) -> dict[str, object]:
        rows = session.exec(query).all()
        more = encode_cursor(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None
        return {"items": present_instances(session, rows[:limit], presenter_context), "next": more}

    return await show(request, page)


@router.get("/{name}", responses=read_responses(200, schemas.Instance, INSTANCE, *ALWAYS, "unknown_instance"))
async def instance(request: Request, _reader: Reader, name: Name) -> Response:
    """Show an instance, with its log tail if it failed."""
    presenter_context = get_app_context(request).presenter_context
    return await show(request, lambda session: present_instance(session, _find(session, name), presenter_context))


def _find(session: Session, id: str) -> Instance:
    row = session.get(Instance, id)
    if row is None:
        raise Problem("unknown_instance", f'instance "{id[:64]}" not found')
    return row
