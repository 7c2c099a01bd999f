"""Changes between two revisions of a service: spec and image."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from app.context import AppContext
from app.pages import render
from app.pages.dependencies import PageViewer
from app.pages.live_page import missing
from app.pages.queries import revisions
from app.presenters.rollouts import present_revision
from services.rollouts.requests.spec_diff import comparable_spec, diff_specs
from services.store.tables import Service

router = APIRouter(prefix="/ui/services/{name}")
Number = Annotated[str, Query(max_length=20)]


@router.get("/changes")
async def changes(
    request: Request, _viewer: PageViewer, name: str, old: Annotated[Number, Query(alias="from")] = "", to: Number = ""
) -> HTMLResponse:
    """Show the changes between the revisions `from` and `to`.

    The defaults are the current revision for `to` and the revision before it for `from`.
    """
    sluice: AppContext = request.app.state.sluice

    def render_page(session: Session) -> HTMLResponse:
        service = session.get(Service, name)
        by_number = {str(row.number): row for row in revisions(session, name)}
        if service is None or not by_number:
            return missing()
        after = by_number.get(to) or by_number.get(str(service.revision)) or next(iter(by_number.values()))
        earlier = [row for row in by_number.values() if row.number < after.number]
        before = by_number.get(old) or next(iter(earlier), after)
        context = {
            "name": name,
            "before": present_revision(before, present=service.revision),
            "after": present_revision(after, present=service.revision),
            "numbers": [(str(row.number), f"r{row.number}  {row.image}") for row in by_number.values()],
            "diff": diff_specs(comparable_spec(before), comparable_spec(after)),
            "replaces": before.hash != after.hash,
        }
        return render.page("changes.html", {**context, "stream": None})

    return await sluice.store.read(render_page)
