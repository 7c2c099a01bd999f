"""The gateway's status, its upgrade without losing a request, and the doctor's examination."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import StrictBool

from app.api import gateway_schemas
from app.api.context import get_app_context
from app.api.examples import EXAMINATION, GATEWAY, UPGRADED
from app.api.idempotency import claim, earlier_answer, store_answer
from app.api.params import IdempotencyKey
from app.api.request_body import Body, documented, read
from app.api.responses import ALWAYS, CHANGE, read_responses
from app.auth import Admin, Caller, Reader
from app.context import AppContext
from app.problems import Problem
from services.infrastructure.gateway_upgrade import GatewayNotReady, UpgradeResult
from services.routing.port import RoutingError
from services.store.events import append_event

router = APIRouter(tags=["gateway"])

_running_upgrades: set[asyncio.Task[dict[str, object]]] = set()


class UpgradeBody(Body):
    """The options of an upgrade; `force` replaces the gateway even if it is up to date."""

    force: StrictBool = False


@router.get("/gateway", responses=read_responses(200, gateway_schemas.GatewayState, GATEWAY, *ALWAYS))
async def state(request: Request, _reader: Reader) -> Response:
    """Show whether the gateway answers and is up to date, and its old workers that finish their requests."""
    sluice = get_app_context(request)
    status = await sluice.gateway.status()
    facts = status or {}
    return JSONResponse(
        {
            "answers": status is not None,
            "version": facts.get("version"),
            "uptime": facts.get("uptime"),
            "image": sluice.settings.gateway_image,
            "outdated": sluice.infrastructure.outdated,
            "upgrading": sluice.infrastructure.upgrading,
            "old_workers": facts.get("old_workers", []),
        }
    )


@router.get("/doctor", responses=read_responses(200, gateway_schemas.Examination, EXAMINATION, *ALWAYS))
async def doctor(request: Request, _reader: Reader) -> Response:
    """Examine engine, network, firewall, gateway, store, disk and clock, with advice for each finding.

    The examination takes a second: a container is started for a moment, to see whether it reaches the bridge.
    """
    sluice = get_app_context(request)
    unknown = [container.name for container in sluice.runtime_status.unknown_containers()]
    findings = await sluice.infrastructure.diagnose(unknown, sluice.readiness.not_ready())
    status = "unwell" if any(finding.status == "wrong" for finding in findings) else "well"
    return JSONResponse({"status": status, "findings": [finding.as_dict() for finding in findings]})


@router.post(
    "/gateway/upgrade",
    responses=read_responses(
        200, gateway_schemas.GatewayUpgrade, UPGRADED, *CHANGE, "idempotency_key_reused", "upgrade_in_progress",
        "gateway_upgrade_failed", "engine_error", "engine_unavailable", "not_ready", "store_unavailable",
    ),
    openapi_extra=documented(UpgradeBody, required=False, when_outdated={}, always={"force": True}),
)  # fmt: skip
async def upgrade(request: Request, admin: Admin, key: IdempotencyKey = None) -> Response:
    """Replace the gateway's container by one with the current image and settings.

    The new container takes over the listening sockets. The old one finishes its requests, for up to an hour, and is
    removed. The response comes when the new one serves. A deployment in progress continues during the upgrade.
    """
    body = await read(request, UpgradeBody)
    sluice = get_app_context(request)
    key_claim = await claim(request, admin, key)
    async with earlier_answer(sluice, key_claim) as earlier:
        if earlier is not None:
            return JSONResponse(earlier)
        if sluice.infrastructure.upgrading:
            raise Problem("upgrade_in_progress", "an upgrade of the gateway is in progress")
        # a started upgrade runs to its end, even if the caller disconnects
        task = asyncio.create_task(_upgrade(sluice, admin, body.force))
        _running_upgrades.add(task)
        task.add_done_callback(_running_upgrades.discard)
        view = await asyncio.shield(task)
        await store_answer(sluice, key_claim, view)
    return JSONResponse(view)


async def _upgrade(sluice: AppContext, admin: Caller, force: bool) -> dict[str, object]:
    try:
        result = await sluice.infrastructure.upgrade(force=force)
    except GatewayNotReady as error:
        raise Problem("gateway_upgrade_failed", f"{error}"[:2000]) from error
    except RoutingError as error:
        raise Problem("not_ready", f"gateway: {error}"[:1000], headers={"Retry-After": "1"}) from error
    if result is None:
        return {"status": "unchanged", "container_id": None, "previous_id": None, "seconds": 0.0}
    await _record_upgrade(sluice, admin, result)
    return {
        "status": "upgraded",
        "container_id": result.container_id,
        "previous_id": result.previous_id,
        "seconds": round(result.seconds, 3),
    }


async def _record_upgrade(sluice: AppContext, admin: Caller, result: UpgradeResult) -> None:
    text = f"the gateway {result.container_id[:12]} took over from {result.previous_id[:12]}"
    await sluice.store.write(
        lambda session: append_event(
            session,
            sluice.clock.now(),
            "gateway_upgraded",
            text,
            data={"container_id": result.container_id, "previous_id": result.previous_id},
            **admin.actor.columns(),
        )
    )
    sluice.notifier.notify()
