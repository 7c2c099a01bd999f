"""The first page: all services, the ones that need attention first, and the newest deployments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from sqlmodel import Session

from app.context import AppContext
from app.pages.charts import spark
from app.pages.dependencies import PageViewer, StreamViewer
from app.pages.live_page import LivePage, PageSource, show, stream
from app.pages.queries import (
    ServiceRow,
    last_deployments,
    newest_deployments,
    newest_sample,
    progress_by_service,
    service_rows,
    with_running,
)
from app.presenters.rollouts import service_status, serving_counts
from services.rollouts.state.status import Status
from services.traffic_metrics.queries import sparklines
from services.traffic_metrics.repository import ROLLUP_STEP

router = APIRouter()
PAGE = LivePage("overview.html", ("health", "summary", "services", "deployments"), rows="services")
NEEDS_ATTENTION = (Status.PAUSED, Status.FAILED, Status.ROLLED_BACK, Status.ROLLBACK_FAILED)
"""Statuses of a last deployment that need the attention of a person."""
_URGENT = ("down", "degraded")


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
    minute = newest_sample(session, ROLLUP_STEP)
    lines = sluice.live_views.cache.get("sparklines", minute, lambda: sparklines(session, (minute or 0) + ROLLUP_STEP))
    progress = progress_by_service(session)
    services = [{**each, "lines": lines.get(each["name"])} for each in _services(session, progress)]
    return {
        "not_ready": sluice.readiness.not_ready(),
        "unknown": sluice.runtime_status.unknown_containers(),
        "counts": Counter(each["status"] for each in services),
        "running": len(progress),
        "rows": {f"service-{each['name']}": {"service": each, "spark": spark} for each in services},
        "deployments": newest_deployments(session),
        "service": None,
    }


def _services(session: Session, progress: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the documents of all services, sorted by urgency."""
    rows = service_rows(session)
    serving, deployed = serving_counts(session, [row.name for row in rows]), last_deployments(session)
    items = [
        {**_service(row, serving.get(row.name, 0), deployed.get(row.name)), "progress": progress.get(row.name)}
        for row in rows
    ]
    return sorted(items, key=_urgency)


def _service(row: ServiceRow, serving: int, last: dict[str, Any] | None) -> dict[str, Any]:
    status = service_status(row.replicas if row.revision is not None else 0, serving)
    needs_attention = status in _URGENT or (last is not None and last["status"] in NEEDS_ATTENTION)
    return with_running(
        {**row._asdict(), "status": status, "serving": serving, "deployment": last, "needs": needs_attention}
    )


def _urgency(service: dict[str, Any]) -> tuple[int, str]:
    """Return the sort key: services that need attention first, then by name.

    A service that is only being deployed keeps its place.
    """
    status = service["status"]
    return _URGENT.index(status) if status in _URGENT else len(_URGENT) + (not service["needs"]), service["name"]


PAGE_SOURCE = PageSource(_query, _version, interval=ROLLUP_STEP / 4)
