"""A service's page: its instances, traffic, deployments, builds and revisions."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from sqlmodel import Session

from app.context import AppContext
from app.pages.dependencies import PageViewer, StreamViewer
from app.pages.live_page import LivePage, PageSource, show, stream
from app.pages.queries import (
    MAX_ROWS,
    existing_services,
    instance_ids,
    newest_builds,
    newest_deployment_id,
    newest_deployments,
    newest_sample,
    revisions,
    service_instances,
    with_running,
)
from app.presenters.rollouts import present_instances, present_revision, present_service
from services.engine.usage_sampler import UsageRate
from services.rollouts.state.dependencies import last_apply_group
from services.rollouts.state.routing_config import active_spec_values
from services.store.tables import Service
from services.traffic_metrics.queries import service_metrics
from services.traffic_metrics.repository import RAW_STEP

router = APIRouter(prefix="/ui/services")
PAGE = LivePage("service.html", ("service", "instances", "figures", "deployments", "builds", "revisions"))


@router.get("/{name}")
async def service(request: Request, viewer: PageViewer, name: str) -> HTMLResponse:
    return await show(request, viewer, PAGE, _page_source(name))


@router.get("/{name}/stream")
async def service_stream(request: Request, viewer: StreamViewer, name: str) -> StreamingResponse:
    return stream(request, viewer, PAGE, _page_source(name))


def _page_source(name: str) -> PageSource:
    def version(sluice: AppContext) -> object:
        return sluice.live_views.version_of(name)

    def query(session: Session, sluice: AppContext) -> dict[str, Any] | None:
        row = session.get(Service, name)
        if row is None:
            return None
        return {
            "about": name,
            "service": with_running(present_service(session, row, sluice.presenter_context)),
            "neighbours": _neighbours(session, sluice, name),
            "figures": _figures(session, sluice, name),
            "instances": present_instances(session, service_instances(session, name), sluice.presenter_context),
            "deployments": newest_deployments(session, name),
            "builds": newest_builds(session, name),
            "revisions": [present_revision(each, present=row.revision) for each in revisions(session, name, MAX_ROWS)],
        }

    return PageSource(query, version, interval=RAW_STEP / 2, load=partial(_usage, name))


async def _usage(name: str, sluice: AppContext) -> dict[str, UsageRate]:
    """Return CPU and memory of the running instances, sampled only while the page is open."""
    return await sluice.usage_sampler.of(await sluice.store.read(lambda session: instance_ids(session, name)))


def _neighbours(session: Session, sluice: AppContext, name: str) -> dict[str, Any]:
    """Return the services related to `name`.

    `links` are the services that it calls by name, `linked_by` those that call it, `applied` its place in the last
    applied file, and `known` those of them that exist.
    """
    links = active_spec_values(session, "links")
    version = newest_deployment_id(session)
    applied = sluice.live_views.cache.get(("applied", name), version, lambda: last_apply_group(session, name))
    calls = {other for one, others in links if one == name for other in others}
    called_by = {one for one, others in links if name in others}
    named = {*calls, *called_by, *(applied.depends_on if applied else ()), *(applied.needed_by if applied else ())}
    return {
        "links": sorted(calls),
        "linked_by": sorted(called_by),
        "applied": applied,
        "known": existing_services(session, named) if named else set(),
    }


def _figures(session: Session, sluice: AppContext, name: str) -> dict[str, Any]:
    """Return the totals of the last hour by revision; `until` is the start of the newest sample."""
    until = newest_sample(session, RAW_STEP)

    def make() -> dict[str, Any]:
        metrics = service_metrics(session, name, sluice.clock.now())
        return {"until": until, "revisions": [(one.revision, one.totals) for one in metrics.revisions]}

    return sluice.live_views.cache.get(("figures", name), until, make)
