"""Services, and the changes that need no spec."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import Field
from sqlmodel import Session, col, or_, select

from app.api import schemas
from app.api.context import get_app_context, request_context, show
from app.api.deployment_responses import respond
from app.api.examples import DEPLOYMENT, REVISION, REVISION_DIFF, SERVICE, page_of
from app.api.params import Cursor, DryRun, IdempotencyKey, Limit, Name, Wait, decode_cursor, encode_cursor
from app.api.request_body import Body, documented, read
from app.api.responses import ALWAYS, create_responses, read_responses
from app.auth import Deployer, Reader, Writer
from app.presenters.rollouts import REVISIONS, SERVICES, present_revision, present_service, present_services
from app.problems import Problem
from services.rollouts.requests import commands
from services.rollouts.requests.spec_diff import comparable_spec, diff_specs
from services.rollouts.state.operational_state import OperationalState
from services.rollouts.state.service_facts import read_states
from services.store.tables import Revision, Service

router = APIRouter(prefix="/services", tags=["services"])
_COMMON_CODES = ("unknown_service", "idempotency_key_reused", "deployment_in_progress")


RevisionNumber = Annotated[int, Path(ge=1, le=2**53)]


class Scale(Body):
    replicas: Annotated[int, Field(ge=0, le=100, strict=True)]


class Rollback(Body):
    """The target of a rollback; without `to_revision`, the newest earlier revision that served."""

    to_revision: Annotated[int, Field(ge=1, le=2**53, strict=True)] | None = None


class Restart(Body):
    """An empty body, or `{}`."""


@router.get("", responses=read_responses(200, schemas.Services, page_of(SERVICE), *ALWAYS))
async def services(
    request: Request,
    _reader: Reader,
    removed: Annotated[bool, Query(description="include removed services")] = False,
    state: Annotated[list[OperationalState] | None, Query(description="only in one of these states; repeatable")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """List services, newest first."""
    presenter_context, after = get_app_context(request).presenter_context, decode_cursor(cursor, float, str)
    crash_looping = presenter_context.runtime_status.crash_looping()
    query = SERVICES.order_by(col(Service.created_at).desc(), col(Service.name)).limit(limit + 1)
    if not removed:
        query = query.where(col(Service.removed).is_(False))
    if after is not None:
        at, name = after
        later = (col(Service.created_at) == at) & (col(Service.name) > name)
        query = query.where(or_(col(Service.created_at) < at, later))

    def page(session: Session) -> dict[str, object]:
        selected = query
        if state:
            states = read_states(session, session.exec(select(Service.name)).all(), crash_looping)
            selected = query.where(col(Service.name).in_([name for name, each in states.items() if each in state]))
        rows = session.exec(selected).all()
        more = encode_cursor(rows[limit - 1].created_at, rows[limit - 1].name) if len(rows) > limit else None
        return {"items": present_services(session, rows[:limit], presenter_context), "next": more}

    return await show(request, page)


@router.get("/{name}", responses=read_responses(200, schemas.Service, SERVICE, *ALWAYS, "unknown_service"))
async def service(request: Request, _reader: Reader, name: Name) -> Response:
    """Show a service, removed or not; values that look secret are `***`."""
    presenter_context = get_app_context(request).presenter_context
    return await show(request, lambda session: present_service(session, _find(session, name), presenter_context))


@router.get(
    "/{name}/revisions", responses=read_responses(200, schemas.Revisions, page_of(REVISION), *ALWAYS, "unknown_service")
)
async def revisions(request: Request, _reader: Reader, name: Name, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """List the revisions of a service, newest first."""
    after = decode_cursor(cursor, int)
    query = REVISIONS.where(col(Revision.service) == name).order_by(col(Revision.number).desc()).limit(limit + 1)
    if after is not None:
        query = query.where(col(Revision.number) < after[0])

    def page(session: Session) -> dict[str, object]:
        current = _find(session, name).revision
        rows = session.exec(query).all()
        more = encode_cursor(rows[limit - 1].number) if len(rows) > limit else None
        return {"items": [present_revision(row, present=current) for row in rows[:limit]], "next": more}

    return await show(request, page)


@router.get(
    "/{name}/revisions/{n}",
    responses=read_responses(200, schemas.Revision, REVISION, *ALWAYS, "unknown_service", "revision_not_found"),
)
async def revision(request: Request, _reader: Reader, name: Name, n: RevisionNumber) -> Response:
    def read_row(session: Session) -> dict[str, object]:
        current = _find(session, name).revision
        return present_revision(_revision(session, name, n), present=current)

    return await show(request, read_row)


@router.get(
    "/{name}/revisions/{n}/diff",
    responses=read_responses(200, schemas.RevisionDiff, REVISION_DIFF, *ALWAYS, "unknown_service", "revision_not_found"),
)
async def revision_diff(
    request: Request,
    _reader: Reader,
    name: Name,
    n: RevisionNumber,
    to: Annotated[int | None, Query(ge=1, le=2**53, description="other revision; default: the current one")] = None,
) -> Response:
    """Show the changes from one revision to another; the service's size belongs to neither."""

    def read_row(session: Session) -> dict[str, object]:
        other = to if to is not None else _find(session, name).revision
        if other is None:
            raise Problem("revision_not_found", f"{name} has no current revision; set ?to=")
        old, new = _revision(session, name, n), _revision(session, name, other)
        diff = [asdict(change) for change in diff_specs(comparable_spec(old), comparable_spec(new))]
        return {"service": name, "revision": n, "to": other, "replaces_instances": old.hash != new.hash, "diff": diff}

    return await show(request, read_row)


@router.post(
    "/{name}/scale",
    status_code=202,
    responses=create_responses(DEPLOYMENT, *_COMMON_CODES, "never_deployed"),
    openapi_extra=documented(Scale, five={"replicas": 5}, none={"replicas": 0}),
)
async def scale(
    request: Request, caller: Deployer, name: Name, wait: Wait = None, dry_run: DryRun = False, key: IdempotencyKey = None
) -> Response:
    """Scale a service to `replicas` instances, without a new revision."""
    body = await read(request, Scale)
    caller.require_service(name)
    context = await request_context(request, caller, key)
    return await respond(request, commands.scale(name, body.replicas), context, wait, dry_run)


@router.post(
    "/{name}/rollback",
    status_code=202,
    responses=create_responses(DEPLOYMENT, *_COMMON_CODES, "never_deployed", "unknown_revision", "no_rollback_target"),
    openapi_extra=documented(Rollback, required=False, earlier={}, named={"to_revision": 3}),
)
async def rollback(
    request: Request, caller: Deployer, name: Name, wait: Wait = None, dry_run: DryRun = False, key: IdempotencyKey = None
) -> Response:
    """Restore a whole revision; the service's size stays."""
    body = await read(request, Rollback)
    caller.require_service(name)
    context = await request_context(request, caller, key)
    return await respond(request, commands.rollback(name, body.to_revision), context, wait, dry_run)


@router.post(
    "/{name}/restart",
    status_code=202,
    responses=create_responses(DEPLOYMENT, *_COMMON_CODES, "never_deployed"),
    openapi_extra=documented(Restart, required=False, empty={}),
)
async def restart(
    request: Request, caller: Deployer, name: Name, wait: Wait = None, dry_run: DryRun = False, key: IdempotencyKey = None
) -> Response:
    """Replace all instances by new ones of the same revision, without losing a request."""
    await read(request, Restart)
    caller.require_service(name)
    context = await request_context(request, caller, key)
    return await respond(request, commands.restart(name), context, wait, dry_run)


@router.delete("/{name}", status_code=202, responses=create_responses(DEPLOYMENT, *_COMMON_CODES))
async def remove(
    request: Request, caller: Writer, name: Name, wait: Wait = None, dry_run: DryRun = False, key: IdempotencyKey = None
) -> Response:
    """Drain, stop and remove all instances; the history stays readable."""
    caller.require_service(name)
    context = await request_context(request, caller, key)
    return await respond(request, commands.remove(name), context, wait, dry_run)


def _find(session: Session, name: str) -> Service:
    row = session.get(Service, name)
    if row is None:
        raise Problem("unknown_service", f'service "{name[:64]}" not found')
    return row


def _revision(session: Session, name: str, number: int) -> Revision:
    _find(session, name)
    row = session.get(Revision, (name, number))
    if row is None:
        raise Problem("revision_not_found", f"{name} has no revision {number}")
    return row
