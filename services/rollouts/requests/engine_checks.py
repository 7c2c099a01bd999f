"""Checks of a deploy request that call the engine: networks, and volumes for bound tokens."""

from __future__ import annotations

from typing import Any

from services.engine.port import Engine, EngineError
from services.errors import FieldError, RequestError
from services.rollouts.requests.command import DeployRequest, PrecheckContext
from services.rollouts.requests.new_deployment import deploy_row
from services.rollouts.requests.ownership import unmanaged_volume
from services.rollouts.requests.spec_errors import invalid
from services.rollouts.requests.validation import existing_unmanaged_volume


async def check_engine_resources(deploy_request: DeployRequest, context: PrecheckContext) -> None:
    """Raise RequestError 422 for networks that the engine does not have or reserves.

    For an author with a bound token, also raise it for volumes that the engine has but no service names. Raises RequestError
    503 `engine_unavailable` if the engine does not answer.
    """
    await _check_networks(context.engine, deploy_request.fields)
    if context.by.grant is not None:
        await _check_volumes(context, deploy_request)


async def _check_networks(engine: Engine, fields: dict[str, Any]) -> None:
    profiles = fields.get("profiles")
    layers = [fields, *(profiles.values() if isinstance(profiles, dict) else ())]
    lists = [layer.get("networks") for layer in layers if isinstance(layer, dict)]
    names = tuple({name for named in lists if isinstance(named, list) for name in named if isinstance(name, str)})
    if not names:
        return
    try:
        missing = await engine.networks_exist(names)
    except EngineError as error:
        raise RequestError(503, "engine_unavailable", f"networks cannot be checked: {error}") from error
    if missing:
        why = "open to services (not host, none, or the instances' network of a Sluice)"
        raise invalid([FieldError("networks", f'the engine has no network "{missing[0][:128]}" {why}')])


async def _check_volumes(context: PrecheckContext, deploy_request: DeployRequest) -> None:
    row = deploy_row(deploy_request, created_at=0)
    try:
        unmanaged = await existing_unmanaged_volume(context.store, context.engine, context.rules, row)
    except EngineError as error:
        raise RequestError(503, "engine_unavailable", f"volumes cannot be checked: {error}") from error
    if unmanaged is not None:
        raise invalid([FieldError("volumes", unmanaged_volume(unmanaged))])
