"""The page of the Eureka registry: registrations, the consumer view and the consumers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.api.registry import view
from app.context import AppContext
from app.pages import render
from app.pages.dependencies import PageViewer

router = APIRouter()
MAX_ROWS = 200
"""Maximum rows of a table; GET /registry has all."""


@router.get("/ui/registry")
async def registry(request: Request, _viewer: PageViewer) -> HTMLResponse:
    """Show the registry as it is now; the page is not live, because every heartbeat would change it."""
    sluice: AppContext = request.app.state.sluice
    port = sluice.settings.eureka_port
    return render.page("registry.html", {**view(sluice.registry), "port": port, "most": MAX_ROWS, "stream": None})
