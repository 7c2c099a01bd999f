"""A deployment's page: its progress, the serving instances, the failures and the actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from sqlmodel import Session

from app.audit import note_refusal
from app.authorization import check_retry_scope
from app.context import AppContext
from app.pages.dependencies import FormViewer, PageViewer, StreamViewer
from app.pages.live_page import LivePage, PageSource, missing, show, stream
from app.pages.queries import deployment_events, deployment_instances, failed_instances, number_of
from app.pages.timeline import timeline
from app.presenters.rollouts import present_deployment, present_event
from app.problems import CODES, Problem, as_problem
from services.errors import RequestError
from services.rollouts.requests import commands
from services.rollouts.requests.command import RequestContext
from services.rollouts.state.status import InvalidTransition
from services.store.tables import Deployment

router = APIRouter(prefix="/ui/deployments")
PAGE = LivePage("deployment.html", ("deployment", "failures", "timeline", "events"))
RENDER_SECONDS = 5.0
"""Seconds between two renderings without an event, because the message counts the seconds of a stop."""
MAX_EVENTS = 200
"""Number of newest events on the page; the API has all."""


@router.get("/{id}")
async def deployment(request: Request, viewer: PageViewer, id: str) -> HTMLResponse:
    return await show(request, viewer, PAGE, _page_source(id))


@router.get("/{id}/stream")
async def deployment_stream(request: Request, viewer: StreamViewer, id: str) -> StreamingResponse:
    return stream(request, viewer, PAGE, _page_source(id))


@router.post("/{id}/{action}")
async def act(
    request: Request, viewer: FormViewer, id: str, action: Literal["pause", "resume", "abort", "retry"]
) -> Response:
    """Apply an action and redirect to the deployment's page, after a retry to that of the new deployment.

    A refusal is shown on the page.
    """
    sluice: AppContext = request.app.state.sluice
    number = number_of(id)
    row = await sluice.store.read(lambda session: session.get(Deployment, number)) if number is not None else None
    if row is None or row.id is None:
        return missing()
    shown_id = row.id
    try:
        viewer.require("deploy")
        viewer.require_service(row.service)
        if action == "retry":
            await check_retry_scope(sluice, viewer, row)
            shown_id = await sluice.submitter.submit(commands.retry(row), RequestContext(viewer.actor))
        else:
            await sluice.submitter.apply_action(row.id, action, viewer.actor)
    except (Problem, RequestError, InvalidTransition) as error:
        problem = as_problem(error)
        status = problem.status or CODES[problem.code][0]
        await note_refusal(request, status, problem.code, problem.detail)
        return await show(
            request, viewer, PAGE, _page_source(id), here=_address(shown_id), error=problem.detail, status=status
        )
    return RedirectResponse(_address(shown_id), 303)


def _page_source(id: str) -> PageSource:
    number = number_of(id)

    service: str | None = None

    def version(sluice: AppContext) -> object:
        return sluice.live_views.version_of(service)

    def query(session: Session, sluice: AppContext) -> dict[str, Any] | None:
        row = session.get(Deployment, number) if number is not None else None
        if row is None:
            return None
        nonlocal service
        service = row.service
        view = present_deployment(session, row, sluice.presenter_context)
        events = deployment_events(session, number)
        return {
            "about": row.service,
            "deployment": view,
            "instances": {instance["id"]: instance for instance in view["instances"]},
            "timeline": timeline(row, deployment_instances(session, row), events),
            "took": row.finished_at - row.started_at if row.finished_at and row.started_at else None,
            "series": _series(row),
            "failures": failed_instances(session, row),
            "events": [present_event(event) for event in events if event.type != "progress"][: -MAX_EVENTS - 1 : -1],
        }

    return PageSource(query, version, interval=RENDER_SECONDS)


def _series(row: Deployment) -> Callable[[int], str]:
    """Return the colour of a revision: the new one, the old one, or any other."""
    return lambda revision: {row.revision: "s1", row.from_revision: "s2"}.get(revision, "s3")


def _address(id: int) -> str:
    return f"/ui/deployments/{id}"
