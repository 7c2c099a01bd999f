"""The API reference at /docs: Swagger UI of /openapi.json, served without any other site."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from app.auth import REFERENCE
from app.pages import render
from app.pages.dependencies import PageViewer

router = APIRouter()


@router.get(REFERENCE)
def reference(_viewer: PageViewer) -> HTMLResponse:
    """Show the reference; it can send requests with the session or a pasted token."""
    return render.page("reference.html", {})
