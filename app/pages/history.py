"""The history: all deployments, newest first, filtered by service, kind, status, person and group."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlmodel import Session, col, select

from app.context import AppContext
from app.pages import render
from app.pages.dependencies import PageViewer
from app.pages.pagination import address, choices, newest, one_of
from app.pages.queries import DEPLOYMENTS, listed
from services.rollouts.state.status import Kind, Status
from services.store.tables import Deployment, Service

router = APIRouter()


@router.get("/ui/history")
async def history(
    request: Request, _viewer: PageViewer, service: str = "", kind: str = "", status: str = "", by: str = "",
    group: str = "", cursor: str | None = None,
) -> HTMLResponse:  # fmt: skip
    """Show the deployments that match the filters; an invalid filter is reported beside its field."""
    sluice: AppContext = request.app.state.sluice
    filters = {"service": service.strip(), "kind": kind, "status": status, "by": by.strip(), "group": group.strip()}
    wrong = {"kind": one_of(kind, Kind), "status": one_of(status, Status), "group": _number(filters["group"])}
    errors = {name: message for name, message in wrong.items() if message}
    query = DEPLOYMENTS
    for name, column in _COLUMNS.items():
        if filters[name]:
            query = query.where(column == filters[name])

    def look(session: Session) -> dict[str, Any]:
        rows, more = newest(session, query, Deployment.id, cursor) if not errors else ([], None)
        names = session.exec(select(Service.name).order_by(Service.name)).all()
        return {
            "deployments": listed(rows),
            "names": names,
            "older": address(request, filters, more),
        }

    found = await sluice.store.read(look)
    options = {"kinds": choices(Kind, "all kinds"), "statuses": choices(Status, "all statuses")}
    words = {**found, **options, "filters": filters, "errors": errors, "service": None, "stream": None}
    return render.page("history.html", words, 422 if errors else 200)


_COLUMNS: dict[str, Any] = {
    "service": col(Deployment.service),
    "kind": col(Deployment.kind),
    "status": col(Deployment.status),
    "by": col(Deployment.created_by_name),
    "group": col(Deployment.group),
}


def _number(text: str) -> str | None:
    """Return the error for a group's number; None if the number is valid."""
    known = not text or (text.isascii() and text.isdecimal() and len(text) <= 18)
    return None if known else "must be the number of what was applied together"
