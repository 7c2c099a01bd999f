"""The Eureka registry: what is registered, what consumers are shown of it, and who they are."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.api.registry import view
from app.context import AppContext
from app.pages import render
from app.pages.dependencies import PageViewer

router = APIRouter()
MOST = 200
"""Rows of a table; GET /registry has all."""


@router.get("/ui/registry")
async def registry(request: Request, _viewer: PageViewer) -> HTMLResponse:
    """As it is now. Not live: every heartbeat would be news."""
    sluice: AppContext = request.app.state.sluice
    port = sluice.settings.eureka_port
    return render.page("registry.html", {**view(sluice.registry), "port": port, "most": MOST, "stream": None})
