"""Deployments: the only thing that changes what runs."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field, StringConstraints
from sqlmodel import Session, col

from app.api import schemas
from app.api.context import app_context, request_context, show
from app.api.examples import DEPLOYMENT, page_of
from app.api.idempotency import answered, keep
from app.api.params import Cursor, DryRun, IdempotencyKey, Limit, Number, RegistryAuth, Wait, claim, cursor_of, place
from app.api.request_body import Body, check, documented, read, read_object
from app.api.responses import ALWAYS, CHANGE, create_responses, read_responses
from app.api.wait import find, get_document, respond, wait_for_end
from app.auth import Caller, Deployer, Reader
from app.context import AppContext
from app.presenters.rollouts import DEPLOYMENTS, present_deployments
from app.problems import Problem
from services.rollouts.requests.submit import Action, DeployRequest
from services.rollouts.state.status import Kind, Status
from services.store.tables import Deployment, Service

router = APIRouter(prefix="/deployments", tags=["deployments"])
OF_DEPLOY = frozenset({"image", "build"})
"""Spec fields that the scope `deploy` may change of an existing service."""
ServiceFilter = Annotated[str | None, Query(max_length=200, description="of this service alone")]


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
    """Bring a service to a spec.

    The body's fields are merged over the present spec, or replace it (`mode: "replace"`).
    """
    body = await read_object(request)
    deploy_request = _parse_request(body)
    request.state.service = deploy_request.service
    await check_deploy_scope(app_context(request), caller, deploy_request)
    context = await request_context(request, caller, key, auth)
    return await respond(request, lambda asking: asking.deploy(deploy_request, context), wait, dry_run)


@router.get("", responses=read_responses(200, schemas.Deployments, page_of(DEPLOYMENT), *ALWAYS))
async def deployments(
    request: Request,
    _reader: Reader,
    service: ServiceFilter = None,
    status: Status | None = None,
    kind: Kind | None = None,
    group: Annotated[int | None, Query(ge=1, le=2**53, description="those that one file was applied as")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """List deployments, newest first, without log tails."""
    presenter_context, after = app_context(request).presenter_context, place(cursor, int)
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
        more = cursor_of(rows[limit - 1].id) if len(rows) > limit else None
        return {"items": present_deployments(session, rows[:limit], presenter_context), "next": more}

    return await show(request, page)


@router.get(
    "/{id}", responses=read_responses(200, schemas.Deployment, DEPLOYMENT, *ALWAYS, "unknown_deployment", "stopping")
)
async def deployment(request: Request, _reader: Reader, id: Number, wait: Wait = None) -> Response:
    """Show a deployment with the log tails of the instances that failed in it.

    With `?wait=` the response comes when the deployment has ended or the wait ran out.
    """
    sluice = app_context(request)
    if wait:
        await wait_for_end(request, sluice, id, wait)
    return JSONResponse(await get_document(sluice, id))


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
    sluice = app_context(request)
    await _bound(request, sluice, caller, id)
    await check_retry_scope(sluice, caller, id)
    context = await request_context(request, caller, key, auth)
    return await respond(request, lambda asking: asking.retry(id, context), wait, dry_run)


_ACTS = read_responses(
    200, schemas.Deployment, DEPLOYMENT, *CHANGE, "unknown_deployment", "not_in_that_state", "idempotency_key_reused"
)


@router.post("/{id}/pause", responses=_ACTS, openapi_extra=documented("Empty", required=False, empty={}))
async def pause(request: Request, caller: Deployer, id: Number, key: IdempotencyKey = None) -> Response:
    """Pause a deployment; serving instances keep serving."""
    return await _act(request, caller, id, "pause", key)


@router.post("/{id}/resume", responses=_ACTS, openapi_extra=documented("Empty", required=False, empty={}))
async def resume(request: Request, caller: Deployer, id: Number, key: IdempotencyKey = None) -> Response:
    """Resume a paused deployment."""
    return await _act(request, caller, id, "resume", key)


@router.post("/{id}/abort", responses=_ACTS, openapi_extra=documented("Empty", required=False, empty={}))
async def abort(request: Request, caller: Deployer, id: Number, key: IdempotencyKey = None) -> Response:
    """Abort a deployment and roll back to the revision that served before, without losing a request."""
    return await _act(request, caller, id, "abort", key)


async def _act(request: Request, caller: Caller, id: int, action: Action, key: str | None) -> Response:
    await read(request, Empty)
    sluice = app_context(request)
    await _bound(request, sluice, caller, id)
    claimed = await claim(request, caller, key)
    if await answered(sluice, claimed) is None:
        await sluice.submitter.apply_action(id, action, caller.actor)
        await keep(sluice, claimed, {"deployment": id})
    return JSONResponse(await get_document(sluice, id))


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


async def check_deploy_scope(sluice: AppContext, caller: Caller, deploy_request: DeployRequest) -> None:
    """Raise Problem (403) if the request exceeds the scope `deploy` and the caller lacks `write`."""
    caller.require_service(deploy_request.service)
    if caller.may("write"):
        return
    more = sorted(set(deploy_request.fields) - OF_DEPLOY)
    if more:
        raise Problem("insufficient_scope", f'{more[0][:100]} needs the scope "write"; "deploy" may change the image alone')
    if deploy_request.mode != "merge":
        raise Problem("insufficient_scope", f'mode "{deploy_request.mode}" needs the scope "write"')
    service = await sluice.store.read(lambda session: session.get(Service, deploy_request.service))
    if service is None or service.removed:
        raise Problem(
            "insufficient_scope", f'"{deploy_request.service[:64]}" does not exist: to create it needs the scope "write"'
        )


async def check_retry_scope(sluice: AppContext, caller: Caller, id: int) -> None:
    """Require the scope that the deployment's own request would need today.

    The body is merged over the spec that is present then, so it counts as new even if it changed nothing before. One
    that succeeded is left to the retry itself, which refuses it. Raises Problem (403).
    """
    before = await sluice.store.read(lambda session: find(session, id))
    if before.kind == Kind.REMOVE and not caller.may("write"):
        raise Problem("insufficient_scope", 'to remove a service needs the scope "write"')
    if before.kind == Kind.DEPLOY and before.status != Status.SUCCEEDED:
        mode: Literal["merge", "replace"] = "replace" if before.mode == "replace" else "merge"
        await check_deploy_scope(sluice, caller, DeployRequest(before.service, before.body, mode))


async def _bound(request: Request, sluice: AppContext, caller: Caller, id: int) -> None:
    """Check that the deployment exists and that the caller's token covers its service.

    Raises Problem: 404 if it does not exist, 403 if the token is bound to other services.
    """
    service = (await sluice.store.read(lambda session: find(session, id))).service
    request.state.service = service
    caller.require_service(service)
