"""Traffic metrics of a service: requests, errors and latency over time, per revision."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from sqlmodel import Session

from app.api import traffic_metrics_schemas as schemas
from app.api.context import get_app_context
from app.api.examples import FIGURES
from app.api.params import Name
from app.api.responses import ALWAYS, read_responses
from app.auth import Reader
from app.problems import Problem
from services.clock import rfc3339
from services.store.tables import Service
from services.traffic_metrics.queries import RevisionMetrics, ServiceMetrics, Totals, service_metrics
from services.traffic_metrics.repository import ROLLUP_KEPT_FOR

router = APIRouter(prefix="/services", tags=["services"])
Window = Annotated[int, Query(ge=60, le=ROLLUP_KEPT_FOR, description="length of the window in seconds: a minute to a day")]


@router.get("/{name}/figures", responses=read_responses(200, schemas.Figures, FIGURES, *ALWAYS, "unknown_service"))
async def figures(request: Request, _reader: Reader, name: Name, window: Window = 3600) -> Response:
    """Show the traffic metrics of a service.

    The steps are ten seconds for a window of up to an hour, and minutes for up to a day; there are at most 360.
    """
    sluice = get_app_context(request)
    now = sluice.clock.now()

    def read_metrics(session: Session) -> ServiceMetrics:
        if session.get(Service, name) is None:
            raise Problem("unknown_service", f'service "{name[:64]}" not found')
        return service_metrics(session, name, now, window)

    return JSONResponse(_view(await sluice.store.read(read_metrics)))


def _view(found: ServiceMetrics) -> dict[str, Any]:
    return {
        "service": found.service,
        "step": found.step,
        "times": [rfc3339(at) for at in found.times],
        "totals": _totals(found.totals),
        "revisions": [_revision(each) for each in found.revisions],
    }


def _revision(found: RevisionMetrics) -> dict[str, Any]:
    points = found.points
    latencies = {share: [_rounded(getattr(point.latency, share)) for point in points] for share in ("p50", "p95", "p99")}
    return {
        "revision": found.revision,
        "totals": _totals(found.totals),
        "requests_per_second": [_rounded(point.requests_per_second) for point in points],
        "error_rate": [_rounded(point.error_rate) for point in points],
        **latencies,
    }


def _totals(found: Totals) -> dict[str, Any]:
    return {
        "requests": found.requests,
        "status_4xx": found.status_4xx,
        "errors": found.errors,
        "error_rate": _rounded(found.error_rate),
        "p50": _rounded(found.latency.p50),
        "p95": _rounded(found.latency.p95),
        "p99": _rounded(found.latency.p99),
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 5)
