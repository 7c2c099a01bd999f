"""Sluice itself: liveness, readiness, metrics and version."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlmodel import select

from app.api import schemas
from app.api.context import get_app_context
from app.api.examples import READY, VERSION
from app.api.responses import ALWAYS, read_responses
from app.auth import Reader
from app.context import AppContext
from app.problems import Problem, declared
from app.version import VERSION as SLUICE_VERSION
from services.control_metrics.metrics import Readings

router = APIRouter(tags=["meta"])
PART_TIMEOUT_SECONDS = 2.0
"""Seconds that a part may take to answer /readyz."""


@router.get("/", include_in_schema=False)
async def root() -> Response:
    return RedirectResponse("/ui/", 303)


@router.get("/healthz", responses=read_responses(200, schemas.Health, {"status": "alive"}, "invalid"))
async def healthz() -> Response:
    """Show that this process answers."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", responses=read_responses(200, schemas.Readiness, READY, "not_ready", "invalid"))
async def readyz(request: Request) -> Response:
    """Show that engine, network, gateway and store are there; 503 names those that are not.

    `unknown_containers` lists containers with Sluice's labels that the store does not know, as after a backup was
    restored, each with the command that removes it. They are left alone. `store_behind_engine` has their instances.
    """
    sluice = get_app_context(request)
    engine, network, gateway, store = await asyncio.gather(
        _check(sluice.engine.ping()),
        _check(sluice.infrastructure.check_network()),
        _check(sluice.gateway.status()),
        _check(_check_store(sluice)),
    )
    gateway["outdated"] = sluice.infrastructure.outdated
    parts = {"engine": engine, "network": network, "gateway": gateway, "store": store}
    for part, why in sluice.readiness.not_ready().items():
        if parts.get(part, {}).get("ok", True):
            parts[part] = {"ok": False, "error": why}
    if sluice.stopping.is_set():
        parts["sluice"] = {"ok": False, "error": "is stopping"}
    unknown = sluice.runtime_status.unknown_containers()
    body = {
        **parts,
        "store_behind_engine": sorted({container.instance for container in unknown}),
        "unknown_containers": [
            {"name": container.name, "instance": container.instance, "remove": container.removal} for container in unknown
        ],
    }
    failures = [f"{part}: {facts['error']}" for part, facts in parts.items() if not facts["ok"]]
    if failures:
        raise Problem("not_ready", "; ".join(failures)[:1000], headers={"Retry-After": "1"}, more=body)
    return JSONResponse({"status": "ready", **body})


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=declared(
        *ALWAYS,
        also={
            200: {"description": "the Prometheus text format", "content": {"text/plain": {"example": "sluice_run 12.0\n"}}}
        },
    ),
)
async def metrics(request: Request, _reader: Reader) -> Response:
    """Show the metrics for Prometheus."""
    sluice = get_app_context(request)
    readings = Readings(
        in_flight=sluice.runtime_status.in_flight_by_service(),
        crash_looping=sluice.runtime_status.crash_looping(),
        not_ready=sluice.readiness.not_ready(),
        reconciles=sluice.controller.reconciles,
        run=sluice.store.run,
        traffic=sluice.traffic_sampler.totals,
    )
    text = await sluice.store.read(lambda session: sluice.metrics.render(session, readings))
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/version", responses=read_responses(200, schemas.Version, VERSION, *ALWAYS))
async def version(request: Request, _reader: Reader) -> Response:
    """Show the version of Sluice, and that of the engine if it answers."""
    sluice = get_app_context(request)
    facts = await _check(sluice.engine.ping())
    engine = {name: value for name, value in facts.items() if name != "ok"} if facts["ok"] else None
    return JSONResponse({"version": SLUICE_VERSION, "name": sluice.settings.name, "run": sluice.store.run, "engine": engine})


async def _check(check: Awaitable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Return a part's answer with `ok`, or `error` if it fails or exceeds PART_TIMEOUT_SECONDS."""
    try:
        async with asyncio.timeout(PART_TIMEOUT_SECONDS):
            facts = await check
    except TimeoutError:
        return {"ok": False, "error": f"no answer within {PART_TIMEOUT_SECONDS:g} s"}
    except Exception as error:
        return {"ok": False, "error": (str(error) or type(error).__name__)[:300]}
    return {"ok": True, **facts} if facts is not None else {"ok": False, "error": "no answer"}


async def _check_store(sluice: AppContext) -> dict[str, Any]:
    await sluice.store.read(lambda session: session.exec(select(1)).one())
    return {"run": sluice.store.run}
