"""The gateway's status, its upgrade without losing a request, and the doctor's examination."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import StrictBool

from app.api import schemas
from app.api.context import app_context
from app.api.examples import EXAMINATION, GATEWAY, UPGRADED
from app.api.idempotency import claim, find_answer, store_answer
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

_under_way: set[asyncio.Task[dict[str, object]]] = set()


class UpgradeBody(Body):
    """The options of an upgrade; `force` replaces the gateway even if it is up to date."""

    force: StrictBool = False


@router.get("/gateway", responses=read_responses(200, schemas.GatewayState, GATEWAY, *ALWAYS))
async def state(request: Request, _reader: Reader) -> Response:
    """Show whether the gateway answers and is up to date, and its old workers that finish their requests."""
    sluice = app_context(request)
    answer = await sluice.gateway.status()
    facts = answer or {}
    return JSONResponse(
        {
            "answers": answer is not None,
            "version": facts.get("version"),
            "uptime": facts.get("uptime"),
            "image": sluice.settings.gateway_image,
            "outdated": sluice.infrastructure.outdated,
            "upgrading": sluice.infrastructure.upgrading,
            "old_workers": facts.get("old_workers", []),
        }
    )


@router.get("/doctor", responses=read_responses(200, schemas.Examination, EXAMINATION, *ALWAYS))
async def doctor(request: Request, _reader: Reader) -> Response:
    """Examine engine, network, firewall, gateway, store, disk and clock, with advice for each finding.

    The examination takes a second: a container is started for a moment, to see whether it reaches the bridge.
    """
    sluice = app_context(request)
    found = await sluice.infrastructure.diagnose(
        list(sluice.runtime_status.unknown_containers), dict(sluice.runtime_status.not_ready)
    )
    status = "unwell" if any(finding.status == "wrong" for finding in found) else "well"
    return JSONResponse({"status": status, "findings": [finding.as_dict() for finding in found]})


@router.post(
    "/gateway/upgrade",
    responses=read_responses(
        200, schemas.GatewayUpgrade, UPGRADED, *CHANGE, "idempotency_key_reused", "upgrade_in_progress",
        "gateway_upgrade_failed", "engine_error", "engine_unavailable", "not_ready", "store_unavailable",
    ),
    openapi_extra=documented(UpgradeBody, required=False, when_outdated={}, always={"force": True}),
)  # fmt: skip
async def upgrade(request: Request, admin: Admin, key: IdempotencyKey = None) -> Response:
    """Replace the gateway's container by one with the present image and settings.

    The new container takes over the listening sockets. The old one finishes its requests, for up to an hour, and is
    removed. The response comes when the new one serves. A deployment in progress continues during the upgrade.
    """
    body = await read(request, UpgradeBody)
    sluice = app_context(request)
    claimed = await claim(request, admin, key)
    before = await find_answer(sluice, claimed)
    if before is not None:
        return JSONResponse(before)
    if sluice.infrastructure.upgrading:
        raise Problem("upgrade_in_progress", "an upgrade of the gateway is under way")
    # a started upgrade runs to its end, even if the caller disconnects
    task = asyncio.create_task(_upgrade(sluice, admin, body.force))
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    view = await asyncio.shield(task)
    await store_answer(sluice, claimed, view)
    return JSONResponse(view)


async def _upgrade(sluice: AppContext, admin: Caller, force: bool) -> dict[str, object]:
    try:
        replaced = await sluice.infrastructure.upgrade(force=force)
    except GatewayNotReady as error:
        raise Problem("gateway_upgrade_failed", f"{error}"[:2000]) from error
    except RoutingError as error:
        raise Problem("not_ready", f"gateway: {error}"[:1000], headers={"Retry-After": "1"}) from error
    if replaced is None:
        return {"status": "unchanged", "container_id": None, "previous_id": None, "seconds": 0.0}
    await _note(sluice, admin, replaced)
    return {
        "status": "upgraded",
        "container_id": replaced.container_id,
        "previous_id": replaced.previous_id,
        "seconds": round(replaced.seconds, 3),
    }


async def _note(sluice: AppContext, admin: Caller, replaced: UpgradeResult) -> None:
    text = f"the gateway {replaced.container_id[:12]} took over from {replaced.previous_id[:12]}"
    await sluice.store.write(
        lambda session: append_event(
            session,
            sluice.clock.now(),
            "gateway_upgraded",
            text,
            data={"container_id": replaced.container_id, "previous_id": replaced.previous_id},
            **admin.actor.columns(),
        )
    )
    sluice.notifier.notify()
