"""A service's page: its instances, traffic, deployments, builds and revisions."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from sqlmodel import Session, col, func, select

from app.context import AppContext
from app.pages.builds import newest_builds
from app.pages.charts import newest
from app.pages.dependencies import PageViewer, StreamViewer
from app.pages.live_page import LivePage, PageSource, show, stream
from app.pages.queries import DEPLOYMENTS, NEWEST, listed, shown
from app.presenters.rollouts import present_instances, present_revision, present_service
from services.engine.usage_sampler import UsageRate
from services.rollouts.state.dependencies import last_apply_group
from services.rollouts.state.routing_config import active_spec_values
from services.store.tables import Deployment, Instance, Revision, Service
from services.traffic_metrics.queries import service_metrics
from services.traffic_metrics.repository import RAW_STEP

router = APIRouter(prefix="/ui/services")
PAGE = LivePage("service.html", ("service", "instances", "figures", "deployments", "builds", "revisions"))


@router.get("/{name}")
async def service(request: Request, viewer: PageViewer, name: str) -> HTMLResponse:
    return await show(request, viewer, PAGE, _looking_at(name))


@router.get("/{name}/stream")
async def service_stream(request: Request, viewer: StreamViewer, name: str) -> StreamingResponse:
    return stream(request, viewer, PAGE, _looking_at(name))


def _looking_at(name: str) -> PageSource:
    def version(sluice: AppContext) -> object:
        return sluice.live_views.version_of(name)

    def query(session: Session, sluice: AppContext) -> dict[str, Any] | None:
        row = session.get(Service, name)
        if row is None:
            return None
        running = (Instance.service == name, col(Instance.stopped_at).is_(None))
        instances = session.exec(select(Instance).where(*running).order_by(col(Instance.created_at), Instance.id)).all()
        deployments = DEPLOYMENTS.where(Deployment.service == name).order_by(col(Deployment.id).desc()).limit(NEWEST)
        query = select(Revision).where(Revision.service == name)
        revisions = session.exec(query.order_by(col(Revision.number).desc()).limit(NEWEST)).all()
        return {
            "about": name,
            "service": shown(present_service(session, row, sluice.presenter_context)),
            "neighbours": _neighbours(session, sluice, name),
            "figures": _figures(session, sluice, name),
            "instances": present_instances(session, instances, sluice.presenter_context),
            "deployments": listed(session.exec(deployments)),
            "builds": newest_builds(session, name),
            "revisions": [present_revision(revision, present=row.revision) for revision in revisions],
        }

    return PageSource(query, version, interval=RAW_STEP / 2, load=partial(_usage, name))


async def _usage(name: str, sluice: AppContext) -> dict[str, UsageRate]:
    """Return CPU and memory of the running instances, sampled only while the page is open."""
    running = select(Instance.id).where(Instance.service == name, col(Instance.stopped_at).is_(None))
    ids = await sluice.store.read(lambda session: session.exec(running).all())
    return await sluice.usage_sampler.of(ids)


def _neighbours(session: Session, sluice: AppContext, name: str) -> dict[str, Any]:
    """Return the services related to `name`.

    `links` are the services that it calls by name, `linked_by` those that call it, `applied` its place in the last
    applied file, and `known` those of them that exist.
    """
    links = active_spec_values(session, "links")
    version = session.exec(select(func.max(Deployment.id))).one()
    applied = sluice.live_views.cache.get(("applied", name), version, lambda: last_apply_group(session, name))
    calls = {other for one, others in links if one == name for other in others}
    called_by = {one for one, others in links if name in others}
    named = {*calls, *called_by, *(applied.depends_on if applied else ()), *(applied.needed_by if applied else ())}
    existing = select(Service.name).where(col(Service.name).in_(named), ~col(Service.removed))
    return {
        "links": sorted(calls),
        "linked_by": sorted(called_by),
        "applied": applied,
        "known": set(session.exec(existing)) if named else set(),
    }


def _figures(session: Session, sluice: AppContext, name: str) -> dict[str, Any]:
    """Return the totals of the last hour by revision; `until` is the start of the newest sample."""
    until = newest(session, RAW_STEP)

    def make() -> dict[str, Any]:
        metrics = service_metrics(session, name, sluice.clock.now())
        return {"until": until, "revisions": [(one.revision, one.totals) for one in metrics.revisions]}

    return sluice.live_views.cache.get(("figures", name), until, make)
