"""Deployments: the only thing that changes what runs."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field, StringConstraints
from sqlmodel import Session, col

from app.api import schemas
from app.api.context import get_app_context, request_context, show
from app.api.deployment_responses import DeploymentPoll, deployment_document, respond
from app.api.examples import DEPLOYMENT, page_of
from app.api.idempotency import claim, earlier_answer, store_answer
from app.api.params import Cursor, DryRun, IdempotencyKey, Limit, Number, RegistryAuth, Wait, decode_cursor, encode_cursor
from app.api.request_body import Body, check, documented, read, read_object
from app.api.responses import ALWAYS, CHANGE, create_responses, read_responses
from app.auth import Caller, Deployer, Reader
from app.authorization import check_deploy_scope, check_retry_scope
from app.presenters.rollouts import DEPLOYMENTS, present_deployments
from services.rollouts.requests import commands
from services.rollouts.requests.command import DeployRequest
from services.rollouts.requests.lookup import get_deployment
from services.rollouts.requests.submit import Action
from services.rollouts.state.status import Kind, Status
from services.store.tables import Deployment

router = APIRouter(prefix="/deployments", tags=["deployments"])
ServiceFilter = Annotated[str | None, Query(max_length=200, description="only of this service")]


class Envelope(Body):
    """The members of a deployment's body that are no fields of the spec."""

    model_config = ConfigDict(extra="allow")

    service: Annotated[str, StringConstraints(max_length=200)]
    mode: Literal["merge", "replace"] = "merge"
    profile: Annotated[str, StringConstraints(max_length=64)] | None = None
    note: Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00]*$")] | None = None
    expected_revision: Annotated[int, Field(ge=0, le=2**53, strict=True)] | None = None


class Empty(Body):
    """An empty body, or `{}`."""


@router.post(
    "",
    status_code=202,
    responses=create_responses(
        DEPLOYMENT, "invalid_spec", "redacted_value", "idempotency_key_reused", "revision_conflict",
        "deployment_in_progress", "engine_unavailable",
    ),
    openapi_extra=documented(
        "DeploymentBody",
        image={"service": "web", "image": "web:1.5", "note": "3f2a9c1"},
        first={"service": "web", "image": "web:1.5", "replicas": 3, "routes": [{"path_prefix": "/web"}]},
        profile={"service": "web", "profile": "prod", "expected_revision": 3},
    ),
)  # fmt: skip
async def deploy(
    request: Request,
    caller: Deployer,
    wait: Wait = None,
    dry_run: DryRun = False,
    key: IdempotencyKey = None,
    auth: RegistryAuth = None,
) -> Response:
    """Deploy a service.

    The body's fields are merged into the current spec, or replace it (`mode: "replace"`).
    """
    body = await read_object(request)
    deploy_request = _parse_request(body)
    request.state.service = deploy_request.service
    await check_deploy_scope(get_app_context(request), caller, deploy_request)
    context = await request_context(request, caller, key, auth)
    return await respond(request, commands.deploy(deploy_request), context, wait, dry_run)


@router.get("", responses=read_responses(200, schemas.Deployments, page_of(DEPLOYMENT), *ALWAYS))
async def deployments(
    request: Request,
    _reader: Reader,
    service: ServiceFilter = None,
    status: Status | None = None,
    kind: Kind | None = None,
    group: Annotated[int | None, Query(ge=1, le=2**53, description="only of this apply group")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """List deployments, newest first, without log tails."""
    presenter_context, after = get_app_context(request).presenter_context, decode_cursor(cursor, int)
    query = DEPLOYMENTS.order_by(col(Deployment.id).desc()).limit(limit + 1)
    if service is not None:
        query = query.where(Deployment.service == service)
    if status is not None:
        query = query.where(Deployment.status == status)
    if kind is not None:
        query = query.where(Deployment.kind == kind)
    if group is not None:
        query = query.where(Deployment.group == group)
    if after is not None:
        query = query.where(col(Deployment.id) < after[0])

    def page(session: Session) -> dict[str, object]:
        rows = session.exec(query).all()
        more = encode_cursor(rows[limit - 1].id) if len(rows) > limit else None
        return {"items": present_deployments(session, rows[:limit], presenter_context), "next": more}

    return await show(request, page)


@router.get(
    "/{id}", responses=read_responses(200, schemas.Deployment, DEPLOYMENT, *ALWAYS, "unknown_deployment", "stopping")
)
async def deployment(request: Request, _reader: Reader, id: Number, wait: Wait = None) -> Response:
    """Show a deployment with the log tails of the instances that failed in it.

    With `?wait=` the response comes when the deployment has ended or the wait ran out.
    """
    sluice = get_app_context(request)
    if wait:
        await DeploymentPoll(sluice, id).wait_for_end(request, wait)
    return JSONResponse(await deployment_document(sluice, id))


@router.post(
    "/{id}/retry",
    status_code=202,
    responses=create_responses(
        DEPLOYMENT, "unknown_deployment", "unknown_service", "not_in_that_state", "never_deployed", "invalid_spec",
        "idempotency_key_reused", "deployment_in_progress",
    ),
    openapi_extra=documented("Empty", required=False, empty={}),
)  # fmt: skip
async def retry(
    request: Request,
    caller: Deployer,
    id: Number,
    wait: Wait = None,
    dry_run: DryRun = False,
    key: IdempotencyKey = None,
    auth: RegistryAuth = None,
) -> Response:
    """Repeat a deployment as a new one with `retry_of`."""
    await read(request, Empty)
    row = await _changeable_deployment(request, caller, id)
    await check_retry_scope(get_app_context(request), caller, row)
    context = await request_context(request, caller, key, auth)
    return await respond(request, commands.retry(row), context, wait, dry_run)


_ACTION_RESPONSES = read_responses(
    200, schemas.Deployment, DEPLOYMENT, *CHANGE, "unknown_deployment", "not_in_that_state", "idempotency_key_reused"
)


@router.post("/{id}/pause", responses=_ACTION_RESPONSES, openapi_extra=documented("Empty", required=False, empty={}))
async def pause(request: Request, caller: Deployer, id: Number, key: IdempotencyKey = None) -> Response:
    """Pause a deployment; serving instances keep serving."""
    return await _act(request, caller, id, "pause", key)


@router.post("/{id}/resume", responses=_ACTION_RESPONSES, openapi_extra=documented("Empty", required=False, empty={}))
async def resume(request: Request, caller: Deployer, id: Number, key: IdempotencyKey = None) -> Response:
    """Resume a paused deployment."""
    return await _act(request, caller, id, "resume", key)


@router.post("/{id}/abort", responses=_ACTION_RESPONSES, openapi_extra=documented("Empty", required=False, empty={}))
async def abort(request: Request, caller: Deployer, id: Number, key: IdempotencyKey = None) -> Response:
    """Abort a deployment and roll back to the revision that served before, without losing a request."""
    return await _act(request, caller, id, "abort", key)


async def _act(request: Request, caller: Caller, id: int, action: Action, key: str | None) -> Response:
    await read(request, Empty)
    sluice = get_app_context(request)
    await _changeable_deployment(request, caller, id)
    key_claim = await claim(request, caller, key)
    async with earlier_answer(sluice, key_claim) as earlier:
        if earlier is None:
            await sluice.submitter.apply_action(id, action, caller.actor)
            await store_answer(sluice, key_claim, {"deployment": id})
    return JSONResponse(await deployment_document(sluice, id))


def _parse_request(body: dict[str, object]) -> DeployRequest:
    envelope = check(Envelope, body)
    fields = {name: value for name, value in body.items() if name not in Envelope.model_fields}
    return DeployRequest(
        service=envelope.service,
        fields=fields,
        mode=envelope.mode,
        profile_named="profile" in body,
        profile=envelope.profile,
        note=envelope.note,
        expected_revision=envelope.expected_revision,
    )


async def _changeable_deployment(request: Request, caller: Caller, id: int) -> Deployment:
    """Return the deployment.

    Raises an error: 404 if it does not exist, 403 if the caller's token is bound to other services.
    """
    row = await get_app_context(request).store.read(lambda session: get_deployment(session, id))
    request.state.service = row.service
    caller.require_service(row.service)
    return row
