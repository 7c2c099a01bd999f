"""Scopes that depend on the content of a request: what the scope `deploy` may change of a service."""

from __future__ import annotations

from app.auth import Caller
from app.context import AppContext
from app.problems import Problem
from services.rollouts.requests.command import DeployRequest
from services.rollouts.requests.commands import repeated_request
from services.rollouts.state.status import Kind, Status
from services.store.tables import Deployment, Service

DEPLOY_SCOPE_FIELDS = frozenset({"image", "build"})
"""Spec fields that the scope `deploy` may change of an existing service."""


async def check_deploy_scope(sluice: AppContext, caller: Caller, deploy_request: DeployRequest) -> None:
    """Raise Problem (403) if the request exceeds the scope `deploy` and the caller lacks `write`."""
    caller.require_service(deploy_request.service)
    if caller.may("write"):
        return
    more = sorted(set(deploy_request.fields) - DEPLOY_SCOPE_FIELDS)
    if more:
        raise Problem("insufficient_scope", f'{more[0][:100]} needs the scope "write"; "deploy" may change only the image')
    if deploy_request.mode != "merge":
        raise Problem("insufficient_scope", f'mode "{deploy_request.mode}" needs the scope "write"')
    service = await sluice.store.read(lambda session: session.get(Service, deploy_request.service))
    if service is None or service.removed:
        raise Problem(
            "insufficient_scope", f'"{deploy_request.service[:64]}" does not exist; creating it needs the scope "write"'
        )


async def check_retry_scope(sluice: AppContext, caller: Caller, deployment: Deployment) -> None:
    """Raise Problem (403) unless the caller has the scope that the deployment's request would need today.

    The body is merged over the spec that is current then, so it counts as new even if it changed nothing before. A
    deployment that succeeded is left to the retry itself, which refuses it.
    """
    if deployment.kind == Kind.REMOVE and not caller.may("write"):
        raise Problem("insufficient_scope", 'removing a service needs the scope "write"')
    if deployment.kind == Kind.DEPLOY and deployment.status != Status.SUCCEEDED:
        await check_deploy_scope(sluice, caller, repeated_request(deployment))
