"""A build's page: its status, its log as it is written, and its actions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from sqlmodel import Session

from app.audit import note_refusal
from app.context import AppContext
from app.pages.dependencies import FormViewer, PageViewer, StreamViewer
from app.pages.live_page import LivePage, PageSource, missing, show, stream
from app.pages.queries import build_item, find_build, number_of
from app.problems import CODES, Problem, as_problem
from services.builds.log import numbered
from services.builds.manager import UNFINISHED
from services.errors import RequestError
from services.store.tables import Build, Service

router = APIRouter(prefix="/ui/builds")
PAGE = LivePage("build.html", ("build",))
MAX_LOG_LINES = 5_000
"""Maximum lines of the log on a page, the same as in app/static/js/logs.js."""


@router.get("/{id}")
async def build(request: Request, viewer: PageViewer, id: str, q: str = "") -> HTMLResponse:
    """Show a build.

    The page of a finished build contains the log lines with `q`. For a build in progress the page's script follows the
    API's own stream.
    """
    return await show(request, viewer, PAGE, _page_source(id, q))


@router.get("/{id}/stream")
async def build_stream(request: Request, viewer: StreamViewer, id: str) -> StreamingResponse:
    return stream(request, viewer, PAGE, _page_source(id))


@router.post("/{id}/cancel")
async def cancel(request: Request, viewer: FormViewer, id: str) -> Response:
    """Cancel a build. The page reports it if the build has ended before."""
    sluice: AppContext = request.app.state.sluice
    number = number_of(id)
    row = await sluice.store.read(lambda session: session.get(Build, number)) if number is not None else None
    if row is None or row.id is None:
        return missing()
    here = f"/ui/builds/{row.id}"
    request.state.service = row.service
    try:
        viewer.require("deploy")
        viewer.require_service(row.service)
        await sluice.build_manager.cancel(row.id, viewer.actor)
    except (Problem, RequestError) as error:
        problem = as_problem(error)
        status = problem.status or CODES[problem.code][0]
        await note_refusal(request, status, problem.code, problem.detail)
        return await show(request, viewer, PAGE, _page_source(id), here=here, error=problem.detail, status=status)
    return RedirectResponse(here, 303)


def _page_source(id: str, q: str = "") -> PageSource:
    number = number_of(id)
    service: str | None = None

    def version(sluice: AppContext) -> object:
        return sluice.live_views.version_of(service)

    def query(session: Session, sluice: AppContext) -> dict[str, Any] | None:
        row = find_build(session, number) if number is not None else None
        if row is None:
            return None
        nonlocal service
        service = row.service
        existing = session.get(Service, service)
        return {
            "about": service,
            "build": build_item(row),
            "took": row.finished_at - row.started_at if row.finished_at and row.started_at else None,
            "exists": existing is not None and not existing.removed,
            "q": q,
            "log": lambda: _log(row, q),
        }

    return PageSource(query, version)


def _log(row: Build, q: str) -> dict[str, Any]:
    """Return the log lines of a finished build that contain `q`, for the whole page only.

    The stream does not show the log. The page's script reads the log of a build in progress from the API.
    """
    if row.status in UNFINISHED:
        return {"lines": [], "cut": False}
    lines = numbered(row.log.split("\n")[:-1], row.log_first, 0)
    cut = row.log_first > 1 or len(lines) > MAX_LOG_LINES
    return {"lines": [text for _, text in lines[-MAX_LOG_LINES:] if q.lower() in text.lower()], "cut": cut}
