"""Requests, errors and latency as pages show them: the columns of the charts, the lines of the overview."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse
from sqlmodel import Session, col, func, select

from app.pages.render import HEADERS
from app.pages.viewer import StreamViewer
from app.sluice import Sluice
from services.figures.reading import RevisionFigures, ServiceFigures, service_figures
from services.store.tables import Figure, Service

router = APIRouter(prefix="/ui/services/{name}")
COLOURS = 4
"""So many revisions have a colour of their own."""


@router.get("/figures")
async def figures(request: Request, _viewer: StreamViewer, name: str) -> JSONResponse:
    """The last hour as the charts draw it: `times`, and for each revision a number at each, null where none is known."""
    sluice: Sluice = request.app.state.sluice

    def look(session: Session) -> ServiceFigures | None:
        known = session.get(Service, name) is not None
        return service_figures(session, name, sluice.clock.now()) if known else None

    found = await sluice.store.read(look)
    if found is None:
        raise HTTPException(404)
    return JSONResponse({"times": found.times, "revisions": [_columns(one) for one in found.revisions]}, headers=HEADERS)


def newest(session: Session, step: int) -> int | None:
    """When the newest figures of that step begin."""
    return session.exec(select(func.max(Figure.at)).where(col(Figure.step) == step)).one()


@lru_cache(4096)
def spark(values: Sequence[float]) -> str:
    """The path of a line through the values, in a box of (len - 1) × 20, with room above; "" when all are 0."""
    top = max(values, default=0)
    if top <= 0:
        return ""
    return "M" + "L".join(f"{x} {19 - round(value / top * 17)}" for x, value in enumerate(values))


def _columns(one: RevisionFigures) -> dict[str, Any]:
    points = one.points
    return {
        "revision": one.revision,
        "requests": [_short(point.requests_per_second) for point in points],
        "errors": [_short(point.error_rate and point.error_rate * 100) for point in points],
        "p50": [_short(point.latency.p50, 1000) for point in points],
        "p95": [_short(point.latency.p95, 1000) for point in points],
        "p99": [_short(point.latency.p99, 1000) for point in points],
    }


def _short(value: float | None, times: float = 1) -> float | None:
    return None if value is None else round(value * times, 2)
