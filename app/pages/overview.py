"""The first page: all services by their states, and the newest deployments."""

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
from services.rollouts.state.operational_state import PROBLEMS, OperationalState, ServiceFacts, service_state
from services.rollouts.state.service_facts import read_facts
from services.traffic_metrics.queries import sparklines
from services.traffic_metrics.repository import ROLLUP_STEP

router = APIRouter()
PAGE = LivePage("overview.html", ("health", "summary", "services", "deployments"), rows="services")
_ORDER = tuple(OperationalState)


@router.get("/")
@router.get("/ui")
def redirect_to_overview() -> RedirectResponse:
    return RedirectResponse("/ui/", 307)


@router.get("/ui/")
async def overview(request: Request, viewer: PageViewer) -> HTMLResponse:
    return await show(request, viewer, PAGE, PAGE_SOURCE)


@router.get("/ui/stream")
async def overview_stream(request: Request, viewer: StreamViewer) -> StreamingResponse:
    return stream(request, viewer, PAGE, PAGE_SOURCE)


def _version(sluice: AppContext) -> object:
    status = sluice.runtime_status
    return sluice.event_feed.newest, sluice.readiness.not_ready(), status.unknown_containers(), status.crash_looping()


def _query(session: Session, sluice: AppContext) -> dict[str, Any]:
    minute = newest_sample(session, ROLLUP_STEP)
    lines = sluice.live_views.cache.get("sparklines", minute, lambda: sparklines(session, (minute or 0) + ROLLUP_STEP))
    progress = progress_by_service(session)
    services = [{**each, "lines": lines.get(each["name"])} for each in _services(session, sluice, progress)]
    return {
        "not_ready": sluice.readiness.not_ready(),
        "unknown": [container.name for container in sluice.runtime_status.unknown_containers()],
        "chips": _chips(Counter(each["state"] for each in services)),
        "rows": {f"service-{each['name']}": {"service": each, "spark": spark} for each in services},
        "deployments": newest_deployments(session),
        "service": None,
    }


def _services(session: Session, sluice: AppContext, progress: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the documents of all services, sorted by state and name."""
    rows, deployed = service_rows(session), last_deployments(session)
    facts = read_facts(session, [row.name for row in rows], sluice.runtime_status.crash_looping())
    items = [{**_service(row, facts[row.name], deployed.get(row.name)), "progress": progress.get(row.name)} for row in rows]
    return sorted(items, key=lambda item: (_ORDER.index(item["state"]), item["name"]))


def _service(row: ServiceRow, facts: ServiceFacts, last: dict[str, Any] | None) -> dict[str, Any]:
    state = service_state(facts)
    document = {**row._asdict(), "state": state, "serving": facts.serving, "deployment": last, "needs": state in PROBLEMS}
    return with_running(document)


def _chips(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the filters of the list of services: text, states and number of services."""
    chips = [
        {"text": "all", "states": (), "count": sum(counts.values())},
        {"text": "needs attention", "states": PROBLEMS, "count": sum(counts[state] for state in PROBLEMS)},
        *({"text": state.replace("_", " "), "states": (state,), "count": counts[state]} for state in OperationalState),
    ]
    return [chip for chip in chips if chip["count"]]


PAGE_SOURCE = PageSource(_query, _version, interval=ROLLUP_STEP / 4)
