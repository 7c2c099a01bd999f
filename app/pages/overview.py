"""The first page: every service as it stands, and the newest deployments."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlmodel import Session, col, select

from app.pages.live import LivePage, follow, show
from app.pages.reading import NEWEST, with_running
from app.pages.viewer import PageViewer, StreamViewer
from app.sluice import Sluice
from services.rollouts.views import deployment_views, service_views
from services.store.tables import Deployment, Service

router = APIRouter()
PAGE = LivePage("overview.html", ("health", "services", "deployments"))


@router.get("/")
@router.get("/ui")
def entrance() -> RedirectResponse:
    return RedirectResponse("/ui/", 307)


@router.get("/ui/")
async def overview(request: Request, viewer: PageViewer) -> HTMLResponse:
    return await show(request, viewer, PAGE, _look)


@router.get("/ui/stream", response_class=EventSourceResponse)
async def overview_stream(request: Request, viewer: StreamViewer) -> AsyncIterable[ServerSentEvent]:
    async for message in follow(request, viewer, PAGE, _look):
        yield message


def _look(session: Session, sluice: Sluice) -> dict[str, Any]:
    services = session.exec(select(Service).where(~col(Service.removed)).order_by(Service.name)).all()
    deployments = session.exec(select(Deployment).order_by(col(Deployment.id).desc()).limit(NEWEST)).all()
    return {
        "not_ready": dict(sluice.live.not_ready),
        "strangers": list(sluice.live.strangers),
        "services": [with_running(view) for view in service_views(session, services, sluice.frame)],
        "deployments": deployment_views(session, deployments, sluice.frame),
        "service": None,
    }
