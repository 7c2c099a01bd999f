"""The audit page: who did or tried what, from which address and with which token."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from app.context import AppContext
from app.pages import render
from app.pages.dependencies import PageViewer
from app.pages.pagination import address, page_of
from app.pages.queries import filtered_audit
from app.presenters.rollouts import present_event
from services.store.tables import Event

router = APIRouter()


@router.get("/ui/audit")
async def audit(
    request: Request, _viewer: PageViewer, actor: str = "", service: str = "",
    type: str = "",  # noqa: A002 - a query parameter
    token: str = "", cursor: str | None = None,
) -> HTMLResponse:  # fmt: skip
    """Show the audit events that match the filters; an invalid filter is reported beside its field."""
    sluice: AppContext = request.app.state.sluice
    filters = {"actor": actor.strip(), "service": service.strip(), "type": type.strip(), "token": token.strip()}
    number = filters["token"]
    errors = {} if not number or _is_number(number) else {"token": "must be the ID of a token"}
    query = filtered_audit(filters)

    def read(session: Session) -> dict[str, Any]:
        rows, more = page_of(session, query, Event.id, cursor) if not errors else ([], None)
        return {"events": [present_event(row, audit=True) for row in rows], "older": address(request, filters, more)}

    context = {**await sluice.store.read(read), "filters": filters, "errors": errors, "stream": None}
    return render.page("audit.html", context, 422 if errors else 200)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 16
