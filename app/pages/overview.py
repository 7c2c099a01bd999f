"""The first page: all services, the ones that need attention first, and the newest deployments."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from sqlmodel import Session, col, func, select

from app.context import AppContext
from app.pages.charts import newest, spark
from app.pages.dependencies import PageViewer, StreamViewer
from app.pages.live_page import LivePage, PageSource, show, stream
from app.pages.queries import DEPLOYMENTS, NEWEST, listed, shown
from app.presenters.rollouts import service_status, serving_counts
from services.rollouts.state.status import Status
from services.store.tables import Deployment, Revision, Service
from services.traffic_metrics.queries import sparklines
from services.traffic_metrics.repository import ROLLUP_STEP

router = APIRouter()
PAGE = LivePage("overview.html", ("health", "summary", "services", "deployments"), rows="services")
NEEDS_SOMEBODY = (Status.PAUSED, Status.FAILED, Status.ROLLED_BACK, Status.ROLLBACK_FAILED)
"""Statuses of a last deployment that need the attention of a person."""
_URGENCY = ("down", "degraded")


@router.get("/")
@router.get("/ui")
def entrance() -> RedirectResponse:
    return RedirectResponse("/ui/", 307)


@router.get("/ui/")
async def overview(request: Request, viewer: PageViewer) -> HTMLResponse:
    return await show(request, viewer, PAGE, PAGE_SOURCE)


@router.get("/ui/stream")
async def overview_stream(request: Request, viewer: StreamViewer) -> StreamingResponse:
    return stream(request, viewer, PAGE, PAGE_SOURCE)


def _version(sluice: AppContext) -> object:
    return sluice.event_feed.newest, sluice.readiness.not_ready(), sluice.runtime_status.unknown_containers()


def _query(session: Session, sluice: AppContext) -> dict[str, Any]:
    minute = newest(session, ROLLUP_STEP)
    lines = sluice.live_views.cache.get("sparklines", minute, lambda: sparklines(session, (minute or 0) + ROLLUP_STEP))
    running = _progress(session)
    views = [
        {**view, "lines": lines.get(view["name"]), "progress": running.get(view["name"])} for view in _services(session)
    ]
    views.sort(key=_urgency)
    return {
        "not_ready": sluice.readiness.not_ready(),
        "strangers": sluice.runtime_status.unknown_containers(),
        "counts": Counter(view["status"] for view in views),
        "running": len(running),
        "rows": {f"service-{view['name']}": {"service": view, "spark": spark} for view in views},
        "deployments": listed(session.exec(DEPLOYMENTS.order_by(col(Deployment.id).desc()).limit(NEWEST))),
        "service": None,
    }


def _services(session: Session) -> list[dict[str, Any]]:
    """Return the columns that each service's row shows.

    Specs are left out: reading, parsing and redacting them is most of the cost of a whole document.
    """
    present = (col(Revision.service) == Service.name) & (col(Revision.number) == Service.revision)
    rows = session.exec(
        select(Service.name, Service.replicas, Service.revision, Revision.profile)
        .join(Revision, present, isouter=True)
        .where(~col(Service.removed))
        .order_by(Service.name)
    ).all()
    serving, deployed = serving_counts(session, [name for name, *_ in rows]), _last(session)
    return [
        _service(name, replicas, revision, profile, serving.get(name, 0), deployed.get(name))
        for name, replicas, revision, profile in rows
    ]


def _service(
    name: str, replicas: int, revision: int | None, profile: str | None, serving: int, last: dict[str, Any] | None
) -> dict[str, Any]:
    status = service_status(replicas if revision is not None else 0, serving)
    return shown(
        {
            "name": name,
            "status": status,
            "serving": serving,
            "replicas": replicas,
            "revision": revision,
            "profile": profile,
            "deployment": last,
            "needs": status in _URGENCY or (last is not None and last["status"] in NEEDS_SOMEBODY),
        }
    )


def _last(session: Session) -> dict[str, dict[str, Any]]:
    """Return service → its newest deployment."""
    newest = select(func.max(Deployment.id)).group_by(Deployment.service)
    return {view["service"]: view for view in listed(session.exec(DEPLOYMENTS.where(col(Deployment.id).in_(newest))))}


def _progress(session: Session) -> dict[str, dict[str, Any]]:
    """Return service → the progress of its deployment in progress."""
    active = (Status.PROGRESSING, Status.PAUSED, Status.ROLLING_BACK)
    rows = session.exec(select(Deployment.service, Deployment.progress).where(col(Deployment.status).in_(active)))
    return {service: dict(progress) for service, progress in rows}


def _urgency(view: dict[str, Any]) -> tuple[int, str]:
    """Return the sort key: services that need attention first, then by name.

    A service that is only being deployed keeps its place.
    """
    urgent = view["status"] in _URGENCY
    return _URGENCY.index(view["status"]) if urgent else len(_URGENCY) + (not view["needs"]), view["name"]


PAGE_SOURCE = PageSource(_query, _version, interval=ROLLUP_STEP / 4)
