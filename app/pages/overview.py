"""The first page: every service as it stands, what needs a person first, and the newest deployments."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, Hashable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlmodel import Session, col, select

from app.pages.figures import newest, spark
from app.pages.live import LivePage, Sight, follow, show
from app.pages.reading import NEWEST, with_running
from app.pages.viewer import PageViewer, StreamViewer
from app.sluice import Sluice
from services.figures.keeping import ROUGH
from services.figures.reading import sparklines
from services.rollouts.phases import Status
from services.rollouts.views import deployment_views, service_views
from services.store.tables import Deployment, Service

router = APIRouter()
PAGE = LivePage("overview.html", ("health", "summary", "services", "deployments"), rows="services")
NEEDS_SOMEBODY = (Status.PAUSED, Status.FAILED, Status.ROLLED_BACK, Status.ROLLBACK_FAILED)
"""How a last deployment stands that somebody should look at."""
_URGENCY = ("down", "degraded")


@router.get("/")
@router.get("/ui")
def entrance() -> RedirectResponse:
    return RedirectResponse("/ui/", 307)


@router.get("/ui/")
async def overview(request: Request, viewer: PageViewer) -> HTMLResponse:
    return await show(request, viewer, PAGE, SIGHT)


@router.get("/ui/stream", response_class=EventSourceResponse)
async def overview_stream(request: Request, viewer: StreamViewer) -> AsyncIterable[ServerSentEvent]:
    async for message in follow(request, viewer, PAGE, SIGHT):
        yield message


def _stamp(sluice: Sluice) -> Hashable:
    live = sluice.live
    return sluice.drawings.news.newest, str(live.not_ready), str(live.strangers)


def _look(session: Session, sluice: Sluice) -> dict[str, Any]:
    services = session.exec(select(Service).where(~col(Service.removed)).order_by(Service.name)).all()
    latest = session.exec(select(Deployment).order_by(col(Deployment.id).desc()).limit(NEWEST)).all()
    running = _progress(session)
    minute = newest(session, ROUGH)
    lines = sluice.drawings.memo.of("sparklines", minute, lambda: sparklines(session, (minute or 0) + ROUGH))
    views = [with_running(view) for view in service_views(session, services, sluice.frame)]
    for view in views:
        view["progress"] = running.get(view["name"])
        view["lines"] = lines.get(view["name"])
        last = view["deployment"]
        view["needs"] = view["status"] in _URGENCY or (last is not None and last["status"] in NEEDS_SOMEBODY)
    views.sort(key=_urgency)
    return {
        "not_ready": dict(sluice.live.not_ready),
        "strangers": list(sluice.live.strangers),
        "counts": Counter(view["status"] for view in views),
        "running": len(running),
        "rows": {f"service-{view['name']}": {"service": view, "spark": spark} for view in views},
        "deployments": deployment_views(session, latest, sluice.frame),
        "service": None,
    }


def _progress(session: Session) -> dict[str, dict[str, Any]]:
    """Service → the progress of its deployment that is under way."""
    active = (Status.PROGRESSING, Status.PAUSED, Status.ROLLING_BACK)
    rows = session.exec(select(Deployment.service, Deployment.progress).where(col(Deployment.status).in_(active)))
    return {service: dict(progress) for service, progress in rows}


def _urgency(view: dict[str, Any]) -> tuple[int, str]:
    """What needs a person first, then the rest by name: what is only being deployed keeps its place."""
    urgent = view["status"] in _URGENCY
    return _URGENCY.index(view["status"]) if urgent else len(_URGENCY) + (not view["needs"]), view["name"]


SIGHT = Sight(_look, _stamp, every=ROUGH / 4)
