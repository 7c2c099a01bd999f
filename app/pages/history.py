"""The history: all deployments, newest first, filtered by service, kind, status, person and group."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from app.context import AppContext
from app.pages import render
from app.pages.dependencies import PageViewer
from app.pages.pagination import address, choices, one_of, page_of
from app.pages.queries import deployment_items, filtered_deployments, service_names
from services.rollouts.state.status import Kind, Status
from services.store.tables import Deployment

router = APIRouter()


@router.get("/ui/history")
async def history(
    request: Request, _viewer: PageViewer, service: str = "", kind: str = "", status: str = "", by: str = "",
    group: str = "", cursor: str | None = None,
) -> HTMLResponse:  # fmt: skip
    """Show the deployments that match the filters; an invalid filter is reported beside its field."""
    sluice: AppContext = request.app.state.sluice
    filters = {"service": service.strip(), "kind": kind, "status": status, "by": by.strip(), "group": group.strip()}
    invalid = {"kind": one_of(kind, Kind), "status": one_of(status, Status), "group": _number(filters["group"])}
    errors = {name: message for name, message in invalid.items() if message}
    query = filtered_deployments(filters)

    def read(session: Session) -> dict[str, Any]:
        rows, more = page_of(session, query, Deployment.id, cursor) if not errors else ([], None)
        items = deployment_items(rows)
        return {"deployments": items, "names": service_names(session), "older": address(request, filters, more)}

    options = {"kinds": choices(Kind, "all kinds"), "statuses": choices(Status, "all statuses")}
    rows = await sluice.store.read(read)
    context = {**rows, **options, "filters": filters, "errors": errors, "service": None, "stream": None}
    return render.page("history.html", context, 422 if errors else 200)


def _number(text: str) -> str | None:
    """Return the error for a group's number; None if the number is valid."""
    known = not text or (text.isascii() and text.isdecimal() and len(text) <= 18)
    return None if known else "must be the ID of a group"
